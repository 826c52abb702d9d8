"""Train a small causal language model for `fmaml run lora`: GPT-2's architecture on bytes of many languages.

    python -m fmaml.recipes.language_base --out bases/languages

Trains on every eighth of the languages that `fmaml run lora` meta-trains on. So most languages of meta-training are new
to the base, like those of the test, and meta-training can learn to adapt to new languages. Writes a folder that
`transformers` reads. ``recipe.json`` in it has the settings, and the bits per byte on unseen languages.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.dataset_facts import class_names
from ..data.sources.udhr import locate_udhr, read_udhr_files
from ..extras import require
from ..processes.environment import environment

BYTES = 256


def train_language_base() -> None:
    """Train the model by the settings of the command line."""
    args = command_line()
    require("language_base", "language", "transformers")
    from transformers import GPT2Config, GPT2LMHeadModel, get_cosine_schedule_with_warmup

    torch.manual_seed(args.seed)
    train, val = texts_of_split("train")[:: args.every], texts_of_split("val")
    model = GPT2LMHeadModel(
        GPT2Config(
            **{"vocab_size": BYTES, "n_positions": args.context, "n_embd": args.width, "n_layer": args.layers},
            **{"n_head": args.width // 32, "bos_token_id": None, "eos_token_id": None, "attn_implementation": "sdpa"},
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), args.lr, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = get_cosine_schedule_with_warmup(optimizer, args.steps // 20, args.steps)
    generator, start = torch.Generator().manual_seed(args.seed), time.time()
    for step in range(1, args.steps + 1):
        loss = nats_a_byte(model.train(), draw_windows(train, args.batch, args.context, generator))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, args.steps // 10) == 0 or step == args.steps:
            seen, unseen = (bits_a_byte(model, texts, args.context) for texts in (train, val))
            print(
                f"{step} {time.time() - start:.0f} s: {seen:.3f} bits a byte, unseen languages {unseen:.3f}", flush=True
            )
            save(model, args, {"step": step, "bits_a_byte": seen, "unseen_languages": unseen})


def command_line() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=8, help="train on every n-th language of the training split")
    parser.add_argument("--batch", type=int, default=16, help="windows of text per step")
    parser.add_argument("--context", type=int, default=384, help="length of the context in bytes")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def texts_of_split(split: str) -> list[Tensor]:
    """The text of each language of the split, as bytes."""
    names = class_names("udhr", split)
    files = read_udhr_files(locate_udhr(None, True), names)
    return [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]


def draw_windows(texts: list[Tensor], count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw passages int64 [count, length], each of a random language."""
    chosen = torch.randint(len(texts), (count,), generator=generator).tolist()
    starts = [int(torch.randint(max(1, len(texts[i]) - length), (), generator=generator)) for i in chosen]
    windows = [texts[i][start : start + length] for i, start in zip(chosen, starts, strict=True)]
    return torch.stack([F.pad(window, (length - len(window), 0), value=10) for window in windows]).long()


def nats_a_byte(model: Any, windows: Tensor) -> Tensor:
    """Mean cross entropy of all bytes but the first, in nats."""
    logits: Tensor = model(input_ids=windows[:, :-1]).logits
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def bits_a_byte(model: Any, texts: list[Tensor], length: int) -> float:
    """Bits per byte on 64 windows, the same in each call."""
    windows = draw_windows(texts, 64, length, torch.Generator().manual_seed(1))
    return float(nats_a_byte(model.eval(), windows)) / math.log(2)


def save(model: Any, args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Write the model and its description."""
    model.save_pretrained(args.out)
    facts = {
        "settings": {**vars(args), "out": str(args.out)},
        "results": results,
        "environment": environment(torch.device("cpu")),
    }
    (args.out / "recipe.json").write_text(json.dumps(facts, indent=1, default=str) + "\n")


if __name__ == "__main__":
    train_language_base()
