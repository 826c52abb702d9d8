"""Built-in random languages that need no file: each a Markov chain of its own, with what can be known of it."""

from pathlib import Path

import torch
from torch import Tensor

from ...losses import Apply, transductive
from ...ranges import Count, OneOrTwo, Rate, Ways
from ...types import Params, Task
from ..rng import fold, task_keys
from ..source import Source
from ..text.generate import BITS, next_symbols, write_samples
from ..text.markov_math import bayes_bits, entropy_rate, passages, transitions

TABLE, SUPPORT, QUERY = range(3)  # which random numbers of a task: never renumbered


def markov(
    *,
    seed: int,
    device: torch.device,
    symbols: Ways = 16,
    order: OneOrTwo = 1,
    concentration: Rate = 0.2,
    shots: Count = 4,
    queries: Count = 4,
    length: Count = 64,
) -> Source:
    """Built-in random languages: Markov chains with Dirichlet rows, whose entropy and best predictor are known.

    A passage has ``length`` symbols to read and the symbol after each of them to predict. A small ``concentration``
    makes a language of few, sure successions; a large one makes noise.
    """

    def language(split: str, step: int, tasks: range) -> tuple[Tensor, Tensor]:
        keys = task_keys(seed, split, step, tasks, device)
        return keys, transitions(fold(keys, TABLE), symbols**order, symbols, concentration)

    def sample(split: str, step: int, tasks: range) -> Task:
        keys, table = language(split, step, tasks)
        support = passages(fold(keys, SUPPORT), table, order, shots, length + 1)
        return Task(next_symbols(support), next_symbols(passages(fold(keys, QUERY), table, order, queries, length + 1)))

    def references(split: str, step: int, tasks: range) -> dict[str, Tensor]:
        _, table = language(split, step, tasks)
        task = sample(split, step, tasks)
        support, query = (torch.cat([batch.x[..., :1], batch.y], -1) for batch in task)
        best = bayes_bits(support, query, symbols, order, concentration)
        return {"best possible (Bayes)": best, "entropy rate": entropy_rate(table, order)}

    def show(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
        write_samples(folder / "samples.txt", tasks, phis, apply, lambda written: "".join(map(letter, written)))

    about = {
        "data": "markov",
        "task": f"random languages, {shots} passages",
        "protocol": f"{symbols} symbols, Markov chains of order {order}, Dirichlet concentration {concentration:g}; "
        f"{shots} support and {queries} query passages of {length} symbols",
        "symbols": symbols,
        "order": order,
        "concentration": concentration,
        "shots": shots,
        "queries": queries,
        "length": length,
    }
    return Source(sample, (length,), symbols, about, show, metric=BITS, settings=(transductive,), references=references)


def letter(symbol: int) -> str:
    """a to z, then whatever follows z among the characters that print."""
    return chr(ord("a") + symbol) if symbol < 26 else chr(0x100 + symbol)
