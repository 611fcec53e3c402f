#!/usr/bin/env python3
"""Computes lora_reference.json: what PEFT says of adapters on the tiny models of CADRE_GOLDEN, for test_lora.py.

    python tests/http/lora_reference.py GOLDEN_FOLDER    # needs torch, transformers and peft

Adapters are drawn by a formula (pairs_of), so that the test can write the same ones without these libraries. Arithmetic is float32.
"""

import json
import pathlib
import sys

import numpy as np

PROMPT = [7, 21, 3, 58, 44, 9, 30, 12, 5, 17, 2, 61]
NUM_TOKENS = 20
HERE = pathlib.Path(__file__).resolve().parent
ATTENTION, DENSE = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]
CASES = {
    "qwen3": {"kinds": ATTENTION + DENSE, "config": {"r": 4, "lora_alpha": 8, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 20}}},
    "qwen3_moe": {"kinds": ATTENTION, "config": {"r": 8, "lora_alpha": 6, "use_rslora": True}},
    "qwen2_moe": {"kinds": ATTENTION + ["shared_expert." + kind for kind in DENSE], "config": {"r": 4, "lora_alpha": 4}},
    "deepseek_v3": {"kinds": ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "o_proj"], "config": {"r": 4, "lora_alpha": 8}},
}


def pairs_of(shapes, rank_of):
    """module -> (A, B) for modules with shapes (outputs, inputs), in the order of their names."""
    pairs = {}
    for number, module in enumerate(sorted(shapes)):
        outputs, inputs = shapes[module]
        rank = rank_of(module)
        a = 0.3 * np.sin(1.7 * np.arange(rank * inputs) ** 1.1 + number)
        b = 0.3 * np.sin(2.3 * np.arange(outputs * rank) ** 1.1 + 10 * number)
        pairs[module] = a.reshape(rank, inputs).astype("f4"), b.reshape(outputs, rank).astype("f4")
    return pairs


def rank_of(config):
    patterns = config.get("rank_pattern", {})
    return lambda module: next((rank for key, rank in patterns.items() if module.endswith("." + key)), config["r"])


def reference(folder, kinds, config):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    plain = model(torch.tensor([PROMPT])).logits
    model = get_peft_model(model, LoraConfig(target_modules=kinds, lora_dropout=0.0, bias="none", **config)).eval()
    modules = {n.removeprefix("base_model.model."): m for n, m in model.named_modules() if hasattr(m, "lora_A") and len(m.lora_A)}
    assert modules and not any(".experts." in name for name in modules), list(modules)
    shapes = {name: (m.base_layer.weight.shape[0], m.base_layer.weight.shape[1]) for name, m in modules.items()}
    with torch.no_grad():
        for name, (a, b) in pairs_of(shapes, rank_of(config)).items():
            modules[name].lora_A["default"].weight.copy_(torch.from_numpy(a))
            modules[name].lora_B["default"].weight.copy_(torch.from_numpy(b))
        tokens = list(PROMPT)
        logits = model(torch.tensor([tokens])).logits[0].double()
        margins = []
        for _ in range(NUM_TOKENS):
            last = model(torch.tensor([tokens])).logits[0, -1]
            best = torch.topk(last, 2).values
            margins.append(float(best[0] - best[1]))
            tokens.append(int(last.argmax()))
    logprobs = torch.log_softmax(logits, -1)
    return {
        "config": config,
        "modules": {name: list(shape) for name, shape in sorted(shapes.items())},
        "greedy": tokens[len(PROMPT) :],
        "smallest_margin": round(min(margins), 4),
        "moved": round(float((logits - plain[0].double()).abs().max()), 3),
        "prompt_logprobs": [round(float(logprobs[i, token]), 6) for i, token in enumerate(PROMPT[1:])],
    }


def main():
    golden = pathlib.Path(sys.argv[1]) / "models"
    out = {name: reference(golden / name, case["kinds"], case["config"]) for name, case in CASES.items()}
    (HERE / "lora_reference.json").write_text(json.dumps(out, indent=1) + "\n")
    for name, case in out.items():
        print(name, "margin", case["smallest_margin"], "moved", case["moved"], len(case["modules"]), "modules")


if __name__ == "__main__":
    main()
