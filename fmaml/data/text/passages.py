"""Draw tasks from texts with a few gathers: passages of one language, each from another article."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...rng import fold, uniform
from ...tree import map_leaves
from ...types import Batch, Task
from ..source import task_keys
from .generate import next_symbols


class Texts(NamedTuple):
    """The articles of all languages of a split, language after language."""

    symbols: Tensor  # uint8 or int32 [symbols]
    starts: Tensor  # int64 [articles]: index in `symbols` of each article's first symbol
    sizes: Tensor  # int64 [articles]: number of symbols of each article
    first_articles: Tensor  # int64 [languages]: index of each language's first article
    article_counts: Tensor  # int64 [languages]: number of articles of each language
    max_article_count: int  # max(article_counts), stored because reading it from a GPU would wait for the GPU


def pack_texts(languages: list[list[Tensor]], device: torch.device) -> Texts:
    """Pack the articles of each language in tensors on ``device``."""
    articles = [article for language in languages for article in language]
    symbols = torch.cat(articles)
    size = torch.tensor([len(article) for article in articles])
    count = torch.tensor([len(language) for language in languages])
    start, first = size.cumsum(0) - size, count.cumsum(0) - count
    max_article_count = int(count.max())
    symbols, start, size, first, count = (part.to(device) for part in (symbols, start, size, first, count))
    return Texts(symbols, start, size, first, count, max_article_count)


def sample_passages(
    splits: dict[str, Texts], seed: int, split: str, step: int, tasks: range, *, shots: int, queries: int, length: int
) -> Task:
    """Draw stacked tasks: support x and y int64 [tasks, shots, length], query x and y int64 [tasks, queries, length].

    y is the symbol after each of x. A task draws a language, then different articles of it, then a position in each. So
    no article is in both support and query. Every article must have at least ``length + 1`` symbols, every language at
    least ``shots + queries`` articles. ``tasks`` is a range of task numbers, as in `fmaml.data.source.Source`.
    """
    texts = splits[split]
    keys = task_keys(seed, split, step, tasks, texts.symbols.device)
    language = _random_below(fold(keys, 0), len(texts.article_counts))  # [tasks]
    slots = torch.arange(texts.max_article_count, device=keys.device)
    scores = fold(fold(keys, 1)[:, None], slots).masked_fill(slots >= texts.article_counts[language][:, None], -(2**63))
    article = texts.first_articles[language][:, None] + scores.topk(shots + queries).indices  # [tasks, shots + queries]
    positions = fold(fold(keys, 2)[:, None], slots[: shots + queries])
    begins = texts.starts[article] + _random_below(positions, texts.sizes[article] - length)
    passages = texts.symbols[begins[..., None] + torch.arange(length + 1, device=keys.device)].long()
    return Task(next_symbols(passages[:, :shots]), next_symbols(passages[:, shots:]))


def sample_stream(
    splits: dict[str, Texts], seed: int, split: str, step: int, tasks: range, *, shots: int, queries: int, length: int
) -> Task:
    """Draw stacked tasks like `sample_passages`, but with passages that follow one another in one article.

    Every article must have at least ``(shots + queries) * length + 1`` symbols.
    """
    passages = shots + queries
    whole = sample_passages(splits, seed, split, step, tasks, shots=1, queries=0, length=passages * length).support
    stream = map_leaves(lambda symbols: symbols.reshape(len(tasks), passages, length), whole)
    return Task(*(Batch(x, y) for x, y in zip(*(t.split([shots, queries], 1) for t in stream), strict=True)))


def _random_below(keys: Tensor, limit: Tensor | int) -> Tensor:
    """Draw a uniform integer from 0 to ``limit`` - 1 for each key."""
    return (uniform(keys) * limit).long()
