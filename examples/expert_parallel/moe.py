"""A layer of experts that are spread over the ranks of a group."""

import dataclasses

import cadre
import numpy as np


def draw_matrix(seed, kind, index, rows, columns):
    """Weights that every process can make by itself: normal, scaled so that rows keep their size."""
    rng = np.random.default_rng([seed, kind, index])
    return (rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)


def draw_router(seed, num_experts, hidden_size):
    return draw_matrix(seed, 0, 0, num_experts, hidden_size)


def draw_expert(seed, index, hidden_size, intermediate_size):
    """gate, up and down of one expert."""
    return (
        draw_matrix(seed, 1, index, intermediate_size, hidden_size),
        draw_matrix(seed, 2, index, intermediate_size, hidden_size),
        draw_matrix(seed, 3, index, hidden_size, intermediate_size),
    )


@dataclasses.dataclass
class Trace:
    """What happened to this rank's tokens in one pass."""

    experts: np.ndarray  # [tokens, top_k] that the router chose
    weights: np.ndarray  # [tokens, top_k]
    rows_per_expert: np.ndarray  # [held] rows that came for each expert held here
    output: np.ndarray  # [tokens, hidden]


class ExpertParallelMoE:
    """Router, dispatch, experts, combine. The router is the same on every rank; each expert lives on one rank.

    `group` is a cadre.ProcessGroup, or None: then this process holds all experts. All members of the group call the
    layer together, each with its own tokens; a rank without tokens passes none.
    """

    def __init__(
        self,
        num_experts,
        top_k,
        hidden_size,
        intermediate_size,
        max_tokens,
        group=None,
        backend="allgather_reducescatter",
        placement="linear",
        seed=0,
    ):
        device = cadre.default_device(group)
        self.top_k = top_k
        self.device = device
        self.exchange = cadre.Exchange(
            group, num_experts, top_k, hidden_size, max_tokens, backend=backend, placement=placement, device=device
        )
        self.router = cadre.Linear(draw_router(seed, num_experts, hidden_size), device)
        # Only the experts that live here are made, so only they take memory.
        self.local_experts = self.exchange.held
        self.experts = cadre.ExpertBank(len(self.local_experts), hidden_size, intermediate_size, device)
        for slot, expert in enumerate(self.local_experts):
            self.experts.set(slot, *draw_expert(seed, expert, hidden_size, intermediate_size))

    def route(self, tokens):
        """The top_k experts of each token, and a softmax over their logits."""
        return cadre.top_k(self.router(tokens), self.top_k, self.device)

    def __call__(self, tokens):
        """tokens [n, hidden] -> [n, hidden]. Rows are computed where they lie in shared memory."""
        self.exchange.send(tokens, *self.route(tokens))
        self.exchange.run(self.experts)
        return self.exchange.combine()

    def trace(self, tokens):
        """The same in visible steps."""
        experts, weights = self.route(tokens)
        received = self.exchange.dispatch(tokens, experts, weights)
        results = self.experts.run(received.rows, received.offsets, received.weights)
        return Trace(experts, weights, np.diff(received.offsets), self.exchange.combine(results))


def plain_moe(tokens, num_experts, top_k, intermediate_size, seed=0):
    """The layer in plain numpy and float64, token by token, without any of the above: what the results must be."""
    hidden_size = tokens.shape[1]
    router = draw_router(seed, num_experts, hidden_size).astype(np.float64)
    experts = [
        [m.astype(np.float64) for m in draw_expert(seed, e, hidden_size, intermediate_size)] for e in range(num_experts)
    ]
    output = np.zeros(tokens.shape)
    for t, x in enumerate(tokens.astype(np.float64)):
        logits = router @ x
        chosen = np.argsort(-logits, kind="stable")[:top_k]
        weights = np.exp(logits[chosen] - logits[chosen[0]])
        for e, weight in zip(chosen, weights / weights.sum()):
            gate, up, down = experts[e]
            a = gate @ x
            output[t] += weight * (down @ (a / (1 + np.exp(-a)) * (up @ x)))
    return output
