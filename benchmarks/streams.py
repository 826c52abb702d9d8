"""Measure the memory and time of learning from a stream, by the number of chunks.

    python benchmarks/streams.py [--json OUT] [--part "small LoRA" ..]

A meta-gradient of `fmaml.streamed` on one stream, in chunks of two passages of 128 bytes. The networks have about 11
million parameters: a transformer of fmaml, and GPT-2's architecture in `transformers` with LoRA of rank 4 by `peft`.
"last third" adapts the hidden layers of two of the six blocks (arXiv 2512.23675: a quarter). "small LoRA" and "rank 1"
have one layer of 64 and one of 128, and LoRA of rank 1, small beside a chunk's activations. "mapped": glibc returns
blocks of 64 KiB or more to the system, as with MALLOC_MMAP_THRESHOLD_=65536. Otherwise they stay in fragments.
Each case runs in its own process. Memory is the peak of resident memory beyond the parameters, and that of the tensors
alone, which include the text. "rank 1" leaves tensors uncounted, because counting doubles the time.
"""

import ctypes
import json
import resource
import subprocess
import sys
import time
from contextlib import nullcontext
from itertools import product
from typing import Any

import torch
from counted import Memory
from measure import Bench, plural

import fmaml
from fmaml import Batch, Task
from fmaml.inner import select
from fmaml.training.memory import M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD

CHUNKS = {"all": (1, 2, 3, 4, 8, 16), "last third": (1, 4, 16), "LoRA": (1, 4, 16)}
CHUNKS |= {"small LoRA": (4, 1024), "rank 1": (4, 256, 1024)}
SMALL = {"small LoRA": {"width": 64, "layers": 1}, "rank 1": {"width": 128, "layers": 1}}
VARIANTS: dict[str, dict[str, Any]] = {
    "kept": {"remat": False},
    "recomputed": {"remat": True},
    "first order, recomputed": {"remat": True, "first_order": True},
}
MAPPED: dict[str, dict[str, Any]] = {"recomputed": {"remat": True}, "recomputed, mapped": {"remat": True}}
MAPPED_BLOCK = 64 * 1024  # bytes
LAST_THIRD = ("block5.up.*", "block5.down.*", "block6.up.*", "block6.down.*")
SYMBOLS, PASSAGES, LENGTH = 256, 2, 128
LONGEST = 3600  # seconds of a case


def main() -> None:
    parts: dict[str, Any] = {"nargs": "+", "choices": list(CHUNKS), "default": list(CHUNKS)}
    bench = Bench(__doc__, seconds=7200, case={"help": "the case to measure in this process"}, part=parts)
    if bench.args.case:
        return print(json.dumps(measure(**json.loads(bench.args.case))))
    for part in bench.args.part:
        sizes = SMALL.get(part, {"width": 384, "layers": 6}) | ({"width": 16} if bench.quick else {})
        variants = MAPPED if part in SMALL else VARIANTS
        for count, variant in product((1, 2) if bench.quick else CHUNKS[part], variants):
            add(bench, {"part": part, "chunks": count, "variant": variant, **sizes})


def add(bench: Bench, case: dict[str, Any]) -> None:
    """Measure a case in a process of its own."""
    command = [sys.executable, __file__, "--device", "cpu", "--case", json.dumps(case)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST)
    found = json.loads(ran.stdout.splitlines()[-1])
    cells = {
        name: f"{found[name] / 2**20:,.1f} MiB" for name in ("bytes", "tensor_bytes", "adapted_bytes") if found[name]
    }
    title = f"{plural(case['chunks'], 'chunk')}, {case['part']}, {case['variant']}"
    bench.add(case | found, case=title, **cells, cpu=f"{found['cpu_s']:.1f} s")


def measure(part: str, chunks: int, variant: str, width: int, layers: int) -> dict[str, Any]:
    """The bytes and the processor seconds of a meta-gradient."""
    torch.set_num_threads(1)
    if variant.endswith("mapped"):
        map_blocks()
    meta_gradient(part, 1, variant, 16, 6, length=2)()  # loads all code
    run = meta_gradient(part, chunks, variant, width, layers)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with Memory() if part != "rank 1" else nullcontext() as memory:
        sizes = run()
    seconds, peak = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"bytes": (peak - before) * 1024, "tensor_bytes": memory and memory.peak, "cpu_s": seconds, **sizes}


def map_blocks() -> None:
    """Let glibc map each large block by itself, and undo `keep_freed_memory`, with which it would not."""
    libc = ctypes.CDLL("libc.so.6")
    for option in (M_TOP_PAD, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        libc.mallopt(option, MAPPED_BLOCK)
    libc.malloc_trim(0)


def meta_gradient(part: str, chunks: int, variant: str, width: int, layers: int, length: int = LENGTH) -> Any:
    """A function that computes a meta-gradient, and returns the bytes of the adapted part and of all parameters."""
    adapters = part in SMALL or part == "LoRA"
    model, base = lora(width, layers, 1 if part in SMALL else 4) if adapters else transformer(width, layers)
    theta = model.init(torch.Generator().manual_seed(0))
    loss_fn, only = fmaml.supervised(model.apply, fmaml.cross_entropy), LAST_THIRD if part == "last third" else ("*",)
    algorithm = fmaml.streamed(loss_fn, inner_lr=0.01, chunks=chunks, only=only, **(VARIANTS | MAPPED)[variant])
    symbols = torch.randint(SYMBOLS, (1, (chunks + 1) * PASSAGES, length + 1))
    stream = Batch(symbols[..., :-1], symbols[..., 1:])
    task = Task(*(Batch(*(t[:, place] for t in stream)) for place in (slice(-PASSAGES), slice(-PASSAGES, None))))
    adapted, every = (sum(4 * p.numel() for p in part.values()) for part in (select(theta, only), theta))

    def run() -> dict[str, int]:
        fmaml.meta_grad(algorithm, theta, task)
        return {"adapted_bytes": adapted, "parameter_bytes": base + every}

    return run


def transformer(width: int, layers: int) -> tuple[fmaml.Model, int]:
    """The network of fmaml, and the bytes of its frozen base: none."""
    heads = 6 if width > 16 else 2
    return fmaml.transformer(inputs=(LENGTH,), outputs=SYMBOLS, width=width, heads=heads, layers=layers), 0


def lora(width: int, layers: int, rank: int) -> tuple[fmaml.Model, int]:
    """GPT-2's architecture with adapters, which are the parameters; and the bytes of its frozen base."""
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes: Any = {"vocab_size": SYMBOLS, "n_positions": LENGTH, "n_layer": layers, "n_embd": width, "n_head": 2}
    sizes |= {"bos_token_id": None, "eos_token_id": None, "use_cache": False, "attn_implementation": "eager"}
    config = GPT2Config(**sizes)
    base = GPT2LMHeadModel(config).eval()
    held = sum(4 * p.numel() for p in base.parameters())
    adapters = LoraConfig(r=rank, fan_in_fan_out=True, target_modules="all-linear", task_type="CAUSAL_LM")
    return fmaml.from_module(get_peft_model(base, adapters).eval(), trainable=["*lora*"], output="logits"), held


if __name__ == "__main__":
    main()
