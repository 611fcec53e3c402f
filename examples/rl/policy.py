"""The demo model in numpy: the trainer's own view of the policy, as far as this example needs it.

A Qwen3-MoE decoder in f32, whole sequences at once, and the gradient of a loss on the logits for the weights that the
example trains: the last layer's experts (their down projections) and the final norm.
"""

import json
import pathlib
import struct

import numpy as np


def read_checkpoint(folder):
    """name -> f32 array, of a folder with config.json and model.safetensors; and the config."""
    folder = pathlib.Path(folder)
    config = json.loads((folder / "config.json").read_text())
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    head = json.loads(data[8 : 8 + length])
    head.pop("__metadata__", None)
    weights = {}
    for name, tensor in head.items():
        begin, end = (8 + length + offset for offset in tensor["data_offsets"])
        if tensor["dtype"] == "BF16":  # the upper half of a float
            array = (np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16).view(np.float32)
        elif tensor["dtype"] == "F32":
            array = np.frombuffer(data[begin:end], np.float32).copy()
        else:
            raise ValueError("%s has type %s; wanted BF16 or F32" % (name, tensor["dtype"]))
        weights[name] = array.reshape(tensor["shape"])
    return config, weights


def silu(x):
    return x / (1 + np.exp(-x))


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


class Policy:
    """weights: name -> f32 array, changed in place by `step`."""

    def __init__(self, config, weights):
        self.config, self.weights = config, weights
        self.last = config["num_hidden_layers"] - 1
        self.trained = ["model.norm.weight"] + [self._expert(self.last, e, "down_proj") for e in range(config["num_experts"])]
        self._moments = {name: [np.zeros_like(weights[name]), np.zeros_like(weights[name])] for name in self.trained}
        self._steps = 0

    def _expert(self, layer, expert, part):
        return "model.layers.%d.mlp.experts.%d.%s.weight" % (layer, expert, part)

    def _norm(self, x, name):
        scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        return x * scale * self.weights[name]

    def _rope(self, x):
        half = x.shape[-1] // 2
        frequencies = self.config["rope_theta"] ** (-np.arange(half, dtype=np.float32) / half)
        angles = np.arange(x.shape[0], dtype=np.float32)[:, None, None] * frequencies
        cos, sin = np.cos(angles), np.sin(angles)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def _attention(self, x, at, lengths):
        c, w = self.config, self.weights
        heads, kv_heads, dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        q, k, v = ((x @ w[at + n + "_proj.weight"].T).reshape(len(x), -1, dim) for n in "qkv")
        q, k = self._norm(q, at + "q_norm.weight"), self._norm(k, at + "k_norm.weight")
        out, begin = np.empty((len(x), heads * dim), np.float32), 0
        for length in lengths:  # each sequence for itself
            rows = slice(begin, begin + length)
            qs, ks = self._rope(q[rows]), self._rope(k[rows])
            ks, vs = (np.repeat(t, heads // kv_heads, 1) for t in (ks, v[rows]))
            scores = np.einsum("qhd,khd->hqk", qs, ks) / np.sqrt(np.float32(dim))
            scores[:, np.triu(np.ones((length, length), bool), 1)] = -np.inf
            probabilities = np.exp(log_softmax(scores))
            out[rows] = np.einsum("hqk,khd->qhd", probabilities, vs).reshape(length, -1)
            begin += length
        return out @ w[at + "o_proj.weight"].T

    def _experts(self, x, layer, replayed):
        """The MoE half of a layer; and for each expert the rows it had, their weights and its inner activations."""
        c, w = self.config, self.weights
        scores = np.exp(log_softmax(x @ w["model.layers.%d.mlp.gate.weight" % layer].T))
        chosen = np.argsort(-scores, -1, kind="stable")[:, : c["num_experts_per_tok"]]
        self.num_choices += len(chosen)
        if replayed is not None:
            self.num_rerouted += int((np.sort(chosen, -1) != np.sort(replayed, -1)).any(-1).sum())
            chosen = replayed
        weights = np.take_along_axis(scores, chosen, -1)
        if c["norm_topk_prob"]:
            weights = weights / weights.sum(-1, keepdims=True)
        out, used = np.zeros_like(x), []
        for expert in range(c["num_experts"]):
            rows, place = np.nonzero(chosen == expert)
            if not len(rows):
                continue
            gate, up, down = (w[self._expert(layer, expert, p)] for p in ("gate_proj", "up_proj", "down_proj"))
            inner = silu(x[rows] @ gate.T) * (x[rows] @ up.T)
            weight = weights[rows, place][:, None]
            out[rows] += weight * (inner @ down.T)
            used.append((expert, rows, weight * inner))
        return out, used

    def forward(self, sequences, experts=None):
        """Logits [all tokens, vocabulary] of the sequences, one behind the other; and what the gradient needs.

        experts: [all tokens, layers, top_k] those that the server has used. Two implementations round differently, and
        where two experts are as good as each other that decides; one token in some 100 000 would be far off.
        """
        self.num_choices = self.num_rerouted = 0
        lengths = [len(s) for s in sequences]
        x = self.weights["model.embed_tokens.weight"][np.concatenate(sequences)]
        for layer in range(self.config["num_hidden_layers"]):
            at = "model.layers.%d." % layer
            x = x + self._attention(self._norm(x, at + "input_layernorm.weight"), at + "self_attn.", lengths)
            replayed = None if experts is None else experts[:, layer]
            moe, used = self._experts(self._norm(x, at + "post_attention_layernorm.weight"), layer, replayed)
            x = x + moe
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        return self._norm(x, "model.norm.weight") @ head.T, (x, used, head)

    def logprobs(self, prompt_lengths, sequences, experts=None):
        """For each sequence the log probabilities of the tokens behind its prompt. Last tokens predict nothing that is
        asked for, so `experts` has rows for all others."""
        logits, kept = self.forward([tokens[:-1] for tokens in sequences], experts)
        logp, out, begin = log_softmax(logits), [], 0
        for prompt, tokens in zip(prompt_lengths, sequences):
            rows = np.arange(begin + prompt - 1, begin + len(tokens) - 1)
            out.append(logp[rows, np.asarray(tokens[prompt:])])
            begin += len(tokens) - 1
        return out, (logp, kept)

    def gradient(self, prompt_lengths, sequences, advantages, saved):
        """Of the mean over generated tokens of -advantage * log probability, for the trained weights."""
        logp, (x, used, head) = saved
        d_logits, begin, count = np.zeros_like(logp), 0, 0
        for prompt, tokens, advantage in zip(prompt_lengths, sequences, advantages):
            rows = np.arange(begin + prompt - 1, begin + len(tokens) - 1)
            d_logits[rows] = advantage * np.exp(logp[rows])
            d_logits[rows, np.asarray(tokens[prompt:])] -= advantage
            begin, count = begin + len(tokens) - 1, count + len(rows)
        d_normed = (d_logits / count) @ head
        scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        gradients = {"model.norm.weight": (d_normed * x * scale).sum(0)}
        d_unit = d_normed * self.weights["model.norm.weight"]
        d_x = scale * (d_unit - x * scale**2 * (d_unit * x).mean(-1, keepdims=True))
        for expert, rows, inner in used:
            gradients[self._expert(self.last, expert, "down_proj")] = d_x[rows].T @ inner
        return gradients

    def step(self, gradients, rate, b1=0.9, b2=0.99):
        """One step of Adam."""
        self._steps += 1
        for name, gradient in gradients.items():
            mean, square = self._moments[name]
            mean += (1 - b1) * (gradient - mean)
            square += (1 - b2) * (gradient * gradient - square)
            corrected = (square / (1 - b2**self._steps)) ** 0.5 + 1e-8
            self.weights[name] -= (rate * mean / (1 - b1**self._steps) / corrected).astype(np.float32)
