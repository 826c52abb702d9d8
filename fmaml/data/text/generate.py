"""What all languages have in common: passages as batches, the metric, and text written by the model."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ...losses import Apply, bits
from ...types import Batch, Params, Task
from ..rng import fold, uniform
from ..source import Metric

BITS = Metric("bits per symbol", bits, ".3f", more_is_better=False)
BITS_A_BYTE = BITS._replace(name="bits per byte")
PROMPT, WRITTEN = 16, 120  # symbols
TEMPERATURE = 0.8
Spell = Callable[[list[int]], str]


def next_symbols(passages: Tensor) -> Batch:
    """Passages int64 [..., length + 1] as what is read and what comes next, both [..., length]."""
    return Batch(passages[..., :-1], passages[..., 1:])


def write_samples(path: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply, spell: Spell) -> None:
    """For each task: a support passage, the beginning of a query passage, and how the model goes on before and
    after adaptation, with the same random numbers."""
    parts = []
    for number, (task, trajectory) in enumerate(zip(tasks, phis, strict=True)):
        passage = torch.cat([task.query.x[0, :1], task.query.y[0]])
        prompt, rest = passage[:PROMPT].tolist(), passage[PROMPT:].tolist()
        context = task.query.x.shape[-1]
        before, after = (write(phi, apply, prompt, context, key=number) for phi in (trajectory[0], trajectory[-1]))
        lines = {
            "from the support set": task.support.x[0].tolist(),
            "given": prompt,
            "as it went on": rest,
            "before adaptation": before,
            f"after {len(trajectory) - 1} inner steps": after,
        }
        parts.append(
            f"language {number}\n" + "".join(f"  {label:24}{one_line(spell(text))}\n" for label, text in lines.items())
        )
    path.write_text("\n".join(parts), encoding="utf-8")


@torch.no_grad()
def write(params: Params, apply: Apply, prompt: list[int], context: int, key: int) -> list[int]:
    """``WRITTEN`` symbols after the prompt, each drawn at ``TEMPERATURE`` given the last ``context`` symbols."""
    draws = uniform(fold(key, torch.arange(WRITTEN)))
    device = next(iter(params.values())).device
    text = list(prompt)
    for draw in draws:
        logits = apply(params, torch.tensor([text[-context:]], device=device))[0, -1].double().cpu()
        cumulative = (logits / TEMPERATURE).softmax(-1).cumsum(-1)
        text.append(int((draw >= cumulative[:-1]).sum()))
    return text[len(prompt) :]


def one_line(text: str) -> str:
    """Line ends as a sign, other control characters as a replacement character."""
    text = text.replace("\n", "⏎")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
