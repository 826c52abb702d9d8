"""Measure the memory and time of learning from a stream, by the number of chunks.

    python benchmarks/streams.py [--json OUT]

A meta-gradient of `fmaml.streamed` on one stream: a transformer of 10.9 million parameters reads chunks of two passages
of 128 bytes. Each case runs in its own process. Memory is the peak of resident memory minus that after the imports and
a step without chunks. "last third" adapts the hidden layers of two of the six blocks (arXiv 2512.23675: a quarter).
"""

import json
import resource
import subprocess
import sys
import time
from itertools import product
from typing import Any

import torch
from measure import Bench, plural

import fmaml
from fmaml import Batch, Task

CHUNKS = (1, 4, 16, 64)
VARIANTS: dict[str, dict[str, Any]] = {
    "kept": {"remat": False},
    "recomputed": {"remat": True},
    "first order, recomputed": {"remat": True, "first_order": True},
}
PARTS = {"all": ("*",), "last third": ("block5.up.*", "block5.down.*", "block6.up.*", "block6.down.*")}
SYMBOLS, PASSAGES, LENGTH = 256, 2, 128
LONGEST = 900  # seconds of a case


def main() -> None:
    bench = Bench(__doc__, seconds=7200, case={"help": "the case to measure in this process"})
    if bench.args.case:
        return print(json.dumps(measure(**json.loads(bench.args.case))))
    chunks, width = ((1, 4), 16) if bench.quick else (CHUNKS, 384)
    for part, count, variant in product(PARTS, chunks, VARIANTS):
        if variant == "kept" and count > 4:
            continue  # it grows linearly, as the first rows show
        case = {"chunks": count, "variant": variant, "part": part, "width": width}
        ran = subprocess.run(
            [sys.executable, __file__, "--device", "cpu", "--case", json.dumps(case)],
            capture_output=True,
            text=True,
            check=True,
            timeout=LONGEST,
        )
        found = json.loads(ran.stdout.splitlines()[-1])
        title = f"{plural(count, 'chunk')}, {part}, {variant}"
        bench.add(case | found, case=title, memory=f"{found['bytes'] / 2**20:,.0f} MiB", cpu=f"{found['cpu_s']:.1f} s")


def measure(chunks: int, variant: str, part: str, width: int) -> dict[str, Any]:
    """The bytes and the processor seconds of a meta-gradient."""
    torch.set_num_threads(1)
    model = fmaml.transformer(inputs=(LENGTH,), outputs=SYMBOLS, width=width, heads=6 if width > 16 else 2, layers=6)
    theta = model.init(torch.Generator().manual_seed(0))
    loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    symbols = torch.randint(SYMBOLS, (1, (chunks + 1) * PASSAGES, LENGTH + 1))
    stream = Batch(symbols[..., :-1], symbols[..., 1:])
    read, last = (Batch(*(t[:, place] for t in stream)) for place in (slice(0, -PASSAGES), slice(-PASSAGES, None)))

    def run(count: int) -> None:
        algorithm = fmaml.streamed(loss_fn, inner_lr=0.01, chunks=count, only=PARTS[part], **VARIANTS[variant])
        fmaml.meta_grad(algorithm, theta, Task(read, last))

    run(0)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    run(chunks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "bytes": (peak - before.ru_maxrss) * 1024,
        "cpu_s": time.process_time() - started,
        "parameters": sum(p.numel() for p in theta.values()),
    }


if __name__ == "__main__":
    main()
