"""Built-in random languages that need no file: Markov chains with known entropy and best predictor."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from ...losses import Apply, transductive
from ...rng import fold
from ...setting_types import CostsMemory, OneOrTwo, Rate, Size, Ways
from ...types import Params, Task
from ..source import Source, task_keys
from ..text.generate import BITS_PER_SYMBOL, next_symbols, write_samples
from ..text.markov_math import bayes_bits, draw_passages, entropy_rate, transition_tables, uniforms

_TABLE, _SUPPORT, _QUERY = range(3)  # counters of a task's random numbers. Never renumber: it changes the tasks


def markov(
    *,
    seed: int,
    device: torch.device,
    symbols: Annotated[Ways, CostsMemory] = 16,
    order: OneOrTwo = 1,
    concentration: Rate = 0.2,
    shots: Size = 4,
    queries: Size = 4,
    length: Size = 64,
) -> Source:
    """Built-in random languages: Markov chains with Dirichlet rows, known entropy and known best predictor.

    Returns a source of tasks: support x and y int64 [tasks, shots, length], query x and y int64 [tasks, queries,
    length]. x is a passage of ``length`` symbols from 0 to ``symbols`` - 1, y the symbol after each of them. A task is
    a language: a Markov chain in which the next symbol depends on the last ``order`` symbols. With a small
    ``concentration`` few symbols are likely after each context; with a large one the next symbol is nearly uniform.

    Tensors are on ``device``. Tasks depend only on ``seed``. ``references`` of the source are the entropy rate of each
    task's language and the loss of the best possible predictor, both in bits per symbol.
    """

    settings: dict[str, Any] = {"symbols": symbols, "order": order, "concentration": concentration}
    settings |= {"shots": shots, "queries": queries, "length": length}
    languages = _Languages(seed, device, **settings)
    about = {
        "data": "markov",
        "task": f"random languages, {shots} passages",
        "protocol": f"{symbols} symbols, Markov chains of order {order}, Dirichlet concentration {concentration:g}; "
        f"{shots} support and {queries} query passages of {length} symbols",
        **settings,
    }
    return Source(
        languages.sample,
        (length,),
        symbols,
        about,
        _save_samples,
        metric=BITS_PER_SYMBOL,
        settings=(transductive,),
        references=languages.references,
    )


class _Languages(NamedTuple):
    """Draws languages and their passages."""

    seed: int
    device: torch.device
    symbols: int
    order: int
    concentration: float
    shots: int
    queries: int
    length: int

    def draw(self, split: str, step: int, tasks: range) -> tuple[Tensor, Tensor]:
        """The key and the transition table of each task."""
        keys = task_keys(self.seed, split, step, tasks, self.device)
        contexts = self.symbols**self.order
        return keys, transition_tables(fold(keys, _TABLE), contexts, self.symbols, self.concentration)

    def sample(self, split: str, step: int, tasks: range) -> Task:
        keys, table = self.draw(split, step, tasks)
        counts = {_SUPPORT: self.shots, _QUERY: self.queries}
        draws = [uniforms(fold(keys, part), count, self.length + 1) for part, count in counts.items()]
        support, query = draw_passages(torch.cat(draws, 1), table, self.order).split(list(counts.values()), 1)
        return Task(next_symbols(support), next_symbols(query))

    def references(self, split: str, step: int, tasks: range) -> dict[str, Tensor]:
        _, table = self.draw(split, step, tasks)
        task = self.sample(split, step, tasks)
        support, query = (torch.cat([batch.x[..., :1], batch.y], -1) for batch in task)
        best = bayes_bits(support, query, self.symbols, self.order, self.concentration)
        return {"best possible (Bayes)": best, "entropy rate": entropy_rate(table, self.order)}


def _save_samples(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    write_samples(folder / "samples.txt", tasks, phis, apply, lambda symbols: "".join(map(_letter, symbols)))


def _letter(symbol: int) -> str:
    """A letter for each symbol: a to z, then letters from U+011A on."""
    return chr(ord("a") + symbol) if symbol < 26 else chr(0x100 + symbol)
