"""Trees of tensors as files: parameters in plain safetensors, checkpoints with a digest before them.

A checkpoint is one line, "fmaml checkpoint 1 " and the SHA-256 of all that follows, then a safetensors file whose
metadata hold the facts as JSON. The digest is checked before anything is parsed; nothing is ever pickled.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor
from torch.utils import _pytree as pytree

from ...atomic_files import write_durably
from ...types import Params, Theta

MAGIC = b"fmaml checkpoint 1 "
HEAD = len(MAGIC) + 64 + 1  # bytes: magic, hexadecimal digest, newline


class DamagedCheckpoint(Exception):
    """Not a whole checkpoint; the message says how it shows."""


def encode_checkpoint(tensors: dict[str, Tensor], facts: dict[str, Any]) -> bytes:
    """A checkpoint's bytes."""
    body = save(tensors, {"facts": json.dumps(facts, allow_nan=False)})
    return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decode_checkpoint(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `encode_checkpoint` was given; DamagedCheckpoint if a single bit differs."""
    head, body = content[:HEAD], content[HEAD:]
    if not head.startswith(MAGIC):
        raise DamagedCheckpoint("it does not begin as a checkpoint of this version does")
    if head != MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise DamagedCheckpoint("its digest does not match")
    try:
        size = int.from_bytes(body[:8], "little")
        facts = json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["facts"])
        return load(body), dict(facts)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise DamagedCheckpoint(f"its digest matches, but it holds no checkpoint ({error})") from None


def flatten(tree: Any, prefix: str = "") -> dict[str, Tensor]:
    """Name, such as "rates/conv1.weight", -> leaf, on the CPU and with memory of its own, as safetensors wants it."""
    named = {name: leaf.detach().cpu().contiguous().clone() for name, leaf in _named(tree, prefix)}
    if len(named) != len(pytree.tree_leaves(tree)):
        raise ValueError(f"{prefix}two leaves of the tree have the same name")
    return named


def fill(template: Any, tensors: dict[str, Tensor], prefix: str = "") -> Any:
    """The tree like ``template``, its leaves from ``tensors``.

    Raises DamagedCheckpoint unless names, shapes and types agree.
    """
    leaves = []
    for name, leaf in _named(template, prefix):
        found = tensors.get(name)
        if found is None or (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
            has = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise DamagedCheckpoint(f"{name} should be {leaf.dtype} {list(leaf.shape)}, and there is {has}")
        leaves.append(found.to(leaf.device))
    return pytree.tree_unflatten(leaves, pytree.tree_structure(template))


def _named(tree: Any, prefix: str) -> list[tuple[str, Tensor]]:
    pairs, _ = pytree.tree_flatten_with_path(tree)
    return [(prefix + "/".join(map(_word, path)), leaf) for path, leaf in pairs]


def _word(key: Any) -> str:
    """One step of a path: a dict's key, a tuple's index, a NamedTuple's field."""
    return str(next(getattr(key, kind) for kind in ("key", "idx", "name") if hasattr(key, kind)))


def save_params(path: Path, theta: Theta) -> None:
    """Write a tree of tensors by their names."""
    write_durably(path, save(flatten(theta)))


def load_params(path: Path) -> Params:
    """Read what `save_params` wrote."""
    return load_file(path)
