"""Convert text to symbols: its bytes, or tokens by a tokenizer of `transformers`."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import Error
from ...extras import require
from ...losses import Criterion, bits


class Alphabet(NamedTuple):
    """The symbols of texts."""

    size: int  # symbols are 0 .. size - 1
    encode: Callable[[bytes], Sequence[int]]
    decode: Callable[[list[int]], str]
    bytes_of: Tensor | None = None  # [size]: the bytes of text of each symbol; None: one each


def read_alphabet(folder: str | None) -> Alphabet:
    """The alphabet of the tokenizer in the folder, or bytes if ``folder`` is None; Error if there is no tokenizer."""
    if folder is None:
        return Alphabet(256, bytes, lambda symbols: bytes(symbols).decode(errors="replace"))
    require("data.tokenizer", "language", "transformers")
    tokenizer = read_tokenizer(folder)

    def encode(text: bytes) -> list[int]:
        return tokenizer.encode(text.decode(errors="replace"), add_special_tokens=False)

    return Alphabet(len(tokenizer), encode, tokenizer.decode, bytes_of_tokens(tokenizer))


def read_tokenizer(folder: str) -> Any:
    """Read the fast tokenizer in the folder; Error if there is none."""
    from transformers import AutoTokenizer

    if not Path(folder).is_dir():
        raise Error(f"data.tokenizer = {folder}: no such folder; give one with a tokenizer.json, or null for bytes")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
        tokenizer.backend_tokenizer.get_vocab_size()
    except Exception as error:  # the library raises any error of its parsers
        raise Error(
            f"data.tokenizer = {folder}: holds no tokenizer that transformers can read ({str(error).splitlines()[0]}); "
            f"give a folder with a tokenizer.json, or null for bytes"
        ) from None
    return tokenizer


def bytes_of_tokens(tokenizer: Any) -> Tensor:
    """The bytes of text of each token, float32 [tokens]; 0 for special tokens."""
    names: list[str] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_tokens)
    a_byte_a_letter = "ByteLevel" in tokenizer.backend_tokenizer.to_str()
    return torch.tensor([0.0 if name in special else bytes_of_token(name, a_byte_a_letter) for name in names])


def bytes_of_token(name: str, a_byte_a_letter: bool) -> float:
    """The bytes of one token, by name. Byte-level vocabularies write a byte as a letter, others text or ``<0x0A>``."""
    if a_byte_a_letter:
        return len(name)
    return 1.0 if re.fullmatch("<0x[0-9A-F]{2}>", name) else len(name.replace("▁", " ").encode())


def bits_per_byte(bytes_of: Tensor | None) -> Criterion:
    """Make a criterion: bits of the symbols y per byte of text. ``bytes_of`` is [symbols]; None: one each."""
    return bits if bytes_of is None else partial(_bits_per_byte, bytes_of)


def _bits_per_byte(bytes_of: Tensor, logits: Tensor, y: Tensor) -> Tensor:
    return bits(logits, y) * y.numel() / bytes_of.to(y.device)[y].sum()
