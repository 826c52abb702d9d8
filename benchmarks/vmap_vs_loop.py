"""How long does one meta-step take, vmapped, chunked and looped?

    python benchmarks/vmap_vs_loop.py [--device cpu] [--json OUT]

conv4 (64 filters, strided) on 5-way 1-shot tasks of 28x28 images, one inner step, second order, Adam outside. The ways
are interleaved in one process; medians, and ratios pair by pair. With glibc the table is made twice: with the allocator
as it comes, and as `fmaml run` sets it. Sampling the tasks is timed beside the step.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fmaml
from fmaml.data.glyphs import glyphs
from fmaml.runtime import environment, keep_freed_memory, pick_device

WAYS_OF_BATCHING = {"loop": {"batching": "loop"}, "vmap": {}, "chunks of 4": {"chunk_size": 4}}
ROUNDS, WARM_UP = 5, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="keep every sample here")
    args = parser.parse_args()
    device = pick_device(args.device)
    rows = table(device, "allocator as it comes")
    if device.type == "cpu" and keep_freed_memory():
        rows += table(device, "freed memory kept")
    if args.json:
        args.json.write_text(json.dumps({"environment": environment(device), "rows": rows}, indent=1) + "\n")


def table(device: torch.device, note: str) -> list[dict[str, Any]]:
    rows = [measure(device, note, queries, meta_batch) for queries in (5, 15) for meta_batch in (4, 16)]
    print(
        f"\n{note}\n{'queries':>8}{'tasks':>7}{'loop':>10}{'vmap':>10}{'chunks':>10}{'vmap/loop':>11}{'sampling':>10}"
    )
    for row in rows:
        loop, vmap, chunks = (1e3 * statistics.median(row["seconds"][way]) for way in WAYS_OF_BATCHING)
        ratio = statistics.median(v / u for u, v in zip(row["seconds"]["loop"], row["seconds"]["vmap"], strict=True))
        share = 1e3 * statistics.median(row["seconds"]["sampling"]) / vmap
        print(
            f"{row['queries']:>8}{row['meta_batch']:>7}{loop:>8.0f}ms{vmap:>8.0f}ms{chunks:>8.0f}ms"
            f"{ratio:>11.2f}{share:>10.2%}"
        )
    return rows


def measure(device: torch.device, note: str, queries: int, meta_batch: int) -> dict[str, Any]:
    source = glyphs(seed=0, device=device, ways=5, shots=1, queries=queries, rotate=())
    model = fmaml.conv4(inputs=source.inputs, outputs=source.outputs)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.4, steps=1)
    optimizer = fmaml.adam(1e-3)
    params = model.init(torch.Generator().manual_seed(0))
    state = fmaml.init_state(algorithm, optimizer, {name: value.to(device) for name, value in params.items()})
    tasks = source.sample("train", 0, range(meta_batch))
    runs: dict[str, Callable[[], Any]] = {
        way: lambda options=options: fmaml.meta_step(algorithm, optimizer, state, tasks, **options)  # type: ignore
        for way, options in WAYS_OF_BATCHING.items()
    }
    runs["sampling"] = lambda: source.sample("train", 0, range(meta_batch))
    seconds = {way: [] for way in runs}
    for turn in range(ROUNDS + WARM_UP):
        for way, run in runs.items():
            spent = timed(run, device)
            if turn >= WARM_UP:
                seconds[way].append(spent)
    return {"allocator": note, "queries": queries, "meta_batch": meta_batch, "seconds": seconds}


def timed(run: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
