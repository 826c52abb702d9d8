"""Tasks out of texts: passages of one language, each from another article; a few gathers, on the texts' device."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...types import Task
from ..rng import fold, task_keys, uniform
from .generate import next_symbols


class Texts(NamedTuple):
    """The articles of all languages of a split, one after the other."""

    symbols: Tensor  # uint8 [symbols]
    start: Tensor  # int64 [articles]: where an article begins in `symbols`
    size: Tensor  # int64 [articles]
    first: Tensor  # int64 [languages]: a language's first article
    count: Tensor  # int64 [languages]: how many it has
    most: int  # max(count), known without asking the device


def pack(languages: list[list[bytes]], device: torch.device) -> Texts:
    """Articles of each language to tensors."""
    articles = [article for language in languages for article in language]
    symbols = torch.frombuffer(bytearray(b"".join(articles)), dtype=torch.uint8)
    size = torch.tensor([len(article) for article in articles])
    count = torch.tensor([len(language) for language in languages])
    start, first = size.cumsum(0) - size, count.cumsum(0) - count
    most = int(count.max())
    symbols, start, size, first, count = (part.to(device) for part in (symbols, start, size, first, count))
    return Texts(symbols, start, size, first, count, most)


def sample_passages(
    texts: Texts, seed: int, split: str, step: int, tasks: range, *, shots: int, queries: int, length: int
) -> Task:
    """Support x and y int64 [tasks, shots, length], query [tasks, queries, length]; y is the symbol after each of x.

    A task draws a language, then articles of it that are all different, then a place in each: no article is in both
    support and query. Every article must have ``length + 1`` symbols, every language ``shots + queries`` articles.
    """
    keys = task_keys(seed, split, step, tasks, texts.symbols.device)
    language = _below(fold(keys, 0), texts.count.new_tensor(len(texts.count)))  # [tasks]
    slots = torch.arange(texts.most, device=keys.device)
    scores = fold(fold(keys, 1)[:, None], slots).masked_fill(slots >= texts.count[language][:, None], -(2**63))
    article = texts.first[language][:, None] + scores.topk(shots + queries).indices  # [tasks, shots + queries]
    places = fold(fold(keys, 2)[:, None], slots[: shots + queries])
    begin = texts.start[article] + _below(places, texts.size[article] - length)
    passages = texts.symbols[begin[..., None] + torch.arange(length + 1, device=keys.device)].long()
    return Task(next_symbols(passages[:, :shots]), next_symbols(passages[:, shots:]))


def _below(keys: Tensor, limit: Tensor) -> Tensor:
    """A whole number from 0 to limit - 1 for each key."""
    return (uniform(keys) * limit).long()
