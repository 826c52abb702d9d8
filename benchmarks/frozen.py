"""Measure the cost of a pretrained base in theta, and frozen outside theta, by the number of tasks.

    python benchmarks/frozen.py [--device cpu] [--json OUT]

GPT-2's architecture with 6 layers of 384 (11 M parameters), and LoRA of rank 4 on every linear layer. A task has 4
support and 4 query passages of 32 symbols; 1 inner step, second order. Memory is the peak bytes of the tensors that a
meta-step creates.
"""

from typing import Any

import torch
from counted import peak_bytes
from measure import Bench, plural, shown
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

import fmaml

SYMBOLS, LENGTH, PASSAGES = 256, 32, 4
WAYS: dict[str, list[str]] = {
    "all in theta": ["*"],
    "LoRA in theta, base outside": ["*lora*"],
    "head in theta, base outside": ["*lm_head*"],
}


def main() -> None:
    bench = Bench(__doc__, seconds=600)
    for way, patterns in WAYS.items():
        model = network(patterns, bench.quick)
        for batching in ("vmap", "loop"):
            for count in (1, 2) if bench.quick else (1, 8):
                run = step(model, count, batching)
                samples = bench.time({"step": run}, seconds=10)
                row = {
                    "way": way,
                    "batching": batching,
                    "tasks": count,
                    "peak_bytes": peak_bytes(run),
                    "seconds": samples,
                }
                row["base_bytes"] = sum(4 * p.numel() for p in base(bench.quick).parameters())
                cells = {"memory": f"{row['peak_bytes'] / 2**20:,.0f} MiB", "time": shown(samples["step"])}
                bench.add(row, case=f"{way}, {batching}, {plural(count, 'task')}", **cells)


def base(quick: bool) -> GPT2LMHeadModel:
    """The base, with random parameters."""
    torch.manual_seed(0)
    layers, width = (1, 32) if quick else (6, 384)
    sizes: Any = {"vocab_size": SYMBOLS, "n_positions": LENGTH, "n_layer": layers, "n_embd": width, "n_head": 4}
    config = GPT2Config(**sizes, bos_token_id=None, eos_token_id=None, tie_word_embeddings=False)
    model = GPT2LMHeadModel(config).eval()
    model.set_attn_implementation("eager")
    return model


def network(patterns: list[str], quick: bool) -> fmaml.Model:
    """The base with adapters; only the parameters that match the patterns are trained."""
    adapters = LoraConfig(r=4, fan_in_fan_out=True, target_modules="all-linear", task_type="CAUSAL_LM")
    return fmaml.from_module(get_peft_model(base(quick), adapters).eval(), trainable=patterns, output="logits")


def step(model: fmaml.Model, count: int, batching: Any) -> Any:
    """One meta-gradient over ``count`` tasks."""
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=1)
    theta = algorithm.init(model.init(torch.Generator().manual_seed(0)))
    passages = torch.randint(SYMBOLS, (count, PASSAGES, LENGTH + 1), generator=torch.Generator().manual_seed(1))
    batch = fmaml.Batch({"input_ids": passages[..., :-1]}, passages[..., 1:])
    return lambda: fmaml.meta_grad(algorithm, theta, fmaml.Task(batch, batch), batching=batching)


if __name__ == "__main__":
    main()
