"""Sources of tasks from collections of texts. Each text is a task: a language, an author or a style."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import Error
from ...losses import Apply, transductive
from ...types import Params, Task
from ..source import About, Source
from .generate import BITS_PER_BYTE, in_context, write_samples
from .passages import pack_texts, sample_passages, sample_stream
from .tokens import Alphabet, bits_per_byte, read_alphabet

Collection = dict[str, dict[str, bytes]]  # split -> name of the text -> its content


class Passages(NamedTuple):
    """The common settings of sources of texts, see `udhr`."""

    shots: int
    queries: int
    length: int
    tokenizer: str | None
    in_context: bool
    in_order: bool


def passages_source(
    collection: Collection, seed: int, device: torch.device, passages: Passages, about: About
) -> Source:
    """Make a source of passages of these texts, see `fmaml.data.sources.udhr.udhr`.

    ``about`` describes the texts: "task" is their kind in the plural, "protocol" a description in words. Raises Error
    if a text has too few articles.
    """
    shots, queries, length, tokenizer, prompted, in_order = passages
    alphabet = read_alphabet(tokenizer)
    if in_order:
        parts_of = partial(whole_text, alphabet=alphabet, least=(shots + queries) * length)
    else:
        parts_of = partial(articles_of, alphabet=alphabet, least=shots + queries, length=length)
    splits = {
        split: pack_texts([parts_of(name, text) for name, text in texts.items()], device)
        for split, texts in collection.items()
    }
    counts = {split: len(texts) for split, texts in collection.items()}
    order = "one after the other" if in_order else "each from another article"
    unit = "bytes" if tokenizer is None else "tokens"
    about = {
        **about,
        "task": f"{about['task']}, {shots} passages",
        "protocol": f"{unit} of {about['protocol']}; {shots} support and {queries} query passages of {length} {unit}, "
        f"{order}, from {counts['test']} unseen {about['task']}",
        **{"shots": shots, "queries": queries, "length": length, about["task"]: counts},
    }
    return Source(
        partial(
            sample_stream if in_order else sample_passages, splits, seed, shots=shots, queries=queries, length=length
        ),
        (length,),
        alphabet.size,
        about,
        partial(_save_samples, tokenizer),
        metric=BITS_PER_BYTE._replace(fn=bits_per_byte(alphabet.bytes_of)),
        settings=(transductive, in_context) if prompted else (transductive,),
        data=dict(splits),
    )


def _save_samples(
    tokenizer: str | None, folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply
) -> None:
    write_samples(folder / "samples.txt", tasks, phis, apply, read_alphabet(tokenizer).decode)


def articles_of(name: str, text: bytes, alphabet: Alphabet, least: int, length: int) -> list[Tensor]:
    """A text's articles in symbols; Error if fewer than ``least`` have more than ``length`` symbols."""
    articles = [as_tensor(alphabet.encode(article)) for article in split_articles(text, length + 1, alphabet)]
    if len(articles) < least:
        raise Error(
            f"{name}: only {len(articles)} of its articles have {length + 1} or more symbols, and a task needs "
            f"data.shots + data.queries = {least}. Blank lines divide articles; give fewer passages, or a smaller "
            f"data.length"
        )
    return articles


def whole_text(name: str, text: bytes, alphabet: Alphabet, least: int) -> list[Tensor]:
    """The whole text in symbols, in a list; Error if it has at most ``least`` symbols."""
    symbols = as_tensor(alphabet.encode(text))
    if len(symbols) <= least:
        raise Error(
            f"{name}: has {len(symbols)} symbols, and a stream needs (data.shots + data.queries) * data.length + 1 = "
            f"{least + 1}; give fewer or shorter passages"
        )
    return [symbols]


def as_tensor(symbols: Sequence[int]) -> Tensor:
    """Convert symbols to uint8 if they are bytes, else to int32."""
    if isinstance(symbols, bytes):
        return torch.frombuffer(bytearray(symbols), dtype=torch.uint8)
    return torch.tensor(symbols, dtype=torch.int32)


def split_articles(content: bytes, least: int, alphabet: Alphabet) -> list[bytes]:
    """Split a text at blank lines, without indentation. Parts of fewer than ``least`` symbols are merged.

    A short part is joined to the next, the last one to the previous. Empty if the whole text is shorter.
    """
    lines = b"\n".join(line.strip() for line in content.splitlines())
    joined: list[bytes] = []
    sizes: list[int] = []
    for part in re.split(rb"\n{2,}", lines.strip()):
        if joined and sizes[-1] < least:
            joined[-1] += b"\n" + part
            sizes[-1] = len(alphabet.encode(joined[-1]))
        else:
            joined.append(part)
            sizes.append(len(alphabet.encode(part)))
    if len(joined) > 1 and sizes[-1] < least:
        short = joined.pop()
        joined[-1] += b"\n" + short
    return [article for article in joined if len(alphabet.encode(article)) >= least]
