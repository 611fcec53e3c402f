"""Reinforcement learning in miniature: sample from a server, reward, update, send the weights back.

    cadre serve models/demo --dtype float32 --logprobs-mode processed_logprobs --enable-return-routed-experts
    python examples/rl/loop.py --model models/demo --server http://127.0.0.1:8000

The policy learns to say tokens with even ids. Each round asks the server for a batch of answers with their log
probabilities, computes the same log probabilities with the trainer's own model, and takes one REINFORCE step with the
importance ratio of the two as its weight. The ratio must be 1 while both hold the same weights: how far it is off says
whether the update has arrived.
"""

import argparse
import base64
import concurrent.futures
import importlib.util
import json
import pathlib
import urllib.request

import numpy as np

from policy import Policy, read_checkpoint

try:
    from cadre.rl import WeightSender
except ImportError:  # without the package: the file alone
    path = pathlib.Path(__file__).resolve().parents[2] / "python/cadre/rl.py"
    spec = importlib.util.spec_from_file_location("cadre_rl", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    WeightSender = module.WeightSender


def call(url, body=None, timeout=720):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read() or b"null")


def sample(server, prompt, seed, max_tokens, version):
    body = {
        "token_ids": prompt,
        "cache_salt": str(version),
        "sampling_params": {"max_tokens": max_tokens, "temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0,
                            "logprobs": 0, "seed": seed, "ignore_eos": True},
    }
    choice = call(server + "/inference/v1/generate", body)["choices"][0]
    routed = choice["routed_experts"]  # null without --enable-return-routed-experts
    if routed is not None:
        routed = np.frombuffer(base64.b64decode(routed["data"]), routed["dtype"]).reshape(routed["shape"])
    return choice["token_ids"], [entry["logprob"] for entry in choice["logprobs"]["content"]], routed


def reward_of(tokens):
    """The share of even ids."""
    return float(np.mean(np.asarray(tokens) % 2 == 0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models/demo")
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--host", default="127.0.0.1", help="this machine, as the server reaches it")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--max-tokens", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.15)
    parser.add_argument("--max-ratio-error", type=float, default=1e-3, help="fail if a ratio is further from 1; 0: never")
    options = parser.parse_args()

    config, weights = read_checkpoint(options.model)
    policy = Policy(config, weights)
    generator = np.random.default_rng(0)
    ranks = call(options.server + "/get_world_size")["world_size"]
    rewards, worst, mean = [], 0.0, 0.0
    with WeightSender(ranks, host="0.0.0.0") as sender, concurrent.futures.ThreadPoolExecutor(16) as pool:
        call(options.server + "/init_broadcaster", {"host": options.host, "port": sender.port})
        for round_number in range(options.rounds):
            prompts = [generator.integers(10, config["vocab_size"], 8).tolist() for _ in range(options.batch)]
            answers = list(pool.map(
                lambda job: sample(options.server, job[1], 1000 * round_number + job[0], options.max_tokens, round_number),
                enumerate(prompts)))
            sequences = [prompt + tokens for prompt, (tokens, _, _) in zip(prompts, answers)]
            lengths = [len(prompt) for prompt in prompts]
            replayed = [routed for _, _, routed in answers]
            experts = None if any(r is None for r in replayed) else np.concatenate(replayed).astype(int)
            own, saved = policy.logprobs(lengths, sequences, experts)
            ratios = [np.exp(mine - np.asarray(theirs)) for mine, (_, theirs, _) in zip(own, answers)]
            off = np.abs(np.concatenate(ratios) - 1)
            error = float(off.max())
            reward = np.array([reward_of(tokens) for tokens, _, _ in answers])
            rewards.append(float(reward.mean()))
            worst, mean = max(worst, error), max(mean, float(off.mean()))
            print("round %d: reward %.3f, importance ratio within %.1e of 1 (mean %.1e), %d of %d choices of experts "
                  "replayed against the trainer's own" % (round_number, rewards[-1], error, off.mean(), policy.num_rerouted,
                                                          policy.num_choices), flush=True)
            if options.max_ratio_error and error > options.max_ratio_error:
                raise SystemExit("the server's log probabilities are not the trainer's: %g" % error)
            advantages = (reward - reward.mean()) / (reward.std() + 1e-6) * [r.mean() for r in ratios]
            policy.step(policy.gradient(lengths, sequences, advantages, saved), options.rate)
            # The requests are done, so nothing stands still here; an asynchronous trainer keeps them in flight.
            call(options.server + "/pause?mode=keep", {})
            sender.offer(policy.weights)
            done = call(options.server + "/update_weights", {"weight_dir": None})
            call(options.server + "/resume", {})
            assert sender.wait(timeout=60), "a rank refused the weights"
            print("  weights sent: generation %d, %.1f MB in %.3f s" % (done["generation"], done["bytes"] / 1e6, done["seconds"]))
    print(json.dumps({"rewards": rewards, "worst_ratio_error": worst, "mean_ratio_error": mean}))


if __name__ == "__main__":
    main()
