"""A model as one file: safetensors with metadata in JSON, which include a format number and a digest of the tensors.

Any reader of safetensors can open it. Nothing is ever pickled. The metadata are checked: the digest here, and names and
shapes of the tensors in `fmaml.models.blueprint`.

A model with "half" in its metadata is stored in half precision where that loses nothing, and is read as float32. So is
a network adapted from it. Its digest is that of the float32 tensors.
"""

import json
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import Error
from ..files.atomic import write_durably
from ..files.digests import sha256_of
from ..files.regular import read_regular

Metadata: TypeAlias = dict[str, Any]  # values of JSON

FORMAT = 1
KEY = "fmaml"  # of the JSON in the safetensors metadata
MAX_HEADER_BYTES = 4_000_000
MAX_MODEL_BYTES = 4_000_000_000
DAMAGED = "damaged or not a model; copy it again, or train it again"


def write_model(path: Path, tensors: dict[str, Tensor], metadata: Metadata | None) -> None:
    """Write a model file, completely or not at all; add the format and the digest to the metadata.

    Without metadata the file holds only the parameters.
    """
    if metadata is None:
        write_durably(path, save(tensors))
        return
    text = json.dumps({"format": FORMAT, **metadata, "digest": digest_of(tensors)}, allow_nan=False)
    stored = {name: halved(x) for name, x in tensors.items()} if metadata.get("half") else tensors
    write_durably(path, save(stored, {KEY: text}))


def read_model(path: Path) -> tuple[dict[str, Tensor], Metadata | None]:
    """The tensors and the metadata of a model file; None for parameters without metadata.

    Raises Error if the file cannot be read, is damaged, or has another format.
    """
    try:
        content = read_regular(path, MAX_MODEL_BYTES)
    except OSError as error:
        raise Error(f"{path}: cannot be read as a model: {error.strerror}") from None
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > MAX_HEADER_BYTES:
        raise Error(f"{path}: {DAMAGED}")
    try:
        header = json.loads(content[8 : 8 + size])
        text = header.get("__metadata__", {}).get(KEY)
        metadata = None if text is None else dict(json.loads(text))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Error(f"{path}: {DAMAGED}") from None
    if metadata is not None and metadata.get("format") != FORMAT:
        raise Error(
            f"{path}: a model of format {metadata.get('format')!r}, but this fmaml reads format {FORMAT}; "
            f"install the version that wrote it"
        )
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise Error(f"{path}: {DAMAGED}") from None
    if metadata is not None and metadata.get("half"):
        tensors = {name: x.float() if x.dtype == torch.float16 else x for name, x in tensors.items()}
    if metadata is not None and metadata.get("digest") != digest_of(tensors):
        raise Error(f"{path}: its digest does not match its parameters: {DAMAGED}")
    return tensors, metadata


def halved(x: Tensor) -> Tensor:
    """A float32 tensor as float16 if that loses nothing; any other tensor unchanged."""
    half = x.half() if x.dtype == torch.float32 else x
    return half if torch.equal(half.to(x.dtype), x) else x


def rounded(x: Tensor) -> Tensor:
    """A float32 tensor with values of half precision, unless one is too large for it; any other tensor unchanged."""
    found = x.half().float() if x.dtype == torch.float32 else x
    return found if torch.equal(found.isfinite(), x.isfinite()) else x


def digest_of(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the names, shapes, types and values of the tensors."""
    named = sorted(tensors.items())
    return sha256_of(*(part for name, x in named for part in (f"{name} {tuple(x.shape)} {x.dtype} ", x)))
