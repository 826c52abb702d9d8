"""Trees of tensors as bytes, and checkpoints with a digest in front.

A checkpoint is one line and a safetensors file. The line is "fmaml checkpoint 1 " and the SHA-256 of the file. The
file's metadata holds the facts as JSON. The digest is checked before anything is parsed. Nothing is ever pickled.
"""

import hashlib
import json
from typing import Any, TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.utils import _pytree as pytree

Facts: TypeAlias = dict[str, Any]  # the part of a checkpoint without tensors, as JSON values

MAGIC = b"fmaml checkpoint 1 "
HEADER_LENGTH = len(MAGIC) + 64 + 1  # bytes: magic, hexadecimal digest, newline


class DamagedCheckpoint(Exception):
    """The bytes are not an intact checkpoint; the message gives the reason."""


class OtherVersion(DamagedCheckpoint):
    """The bytes are intact, and another version of fmaml wrote them."""


def encode_checkpoint(tensors: dict[str, Tensor], facts: Facts) -> bytes:
    """The bytes of a checkpoint."""
    body = save(tensors, {"facts": json.dumps(facts, allow_nan=False)})
    return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decode_checkpoint(content: bytes) -> tuple[dict[str, Tensor], Facts]:
    """The tensors and facts in a checkpoint: the inverse of `encode_checkpoint`; DamagedCheckpoint if a bit differs."""
    head, body = content[:HEADER_LENGTH], content[HEADER_LENGTH:]
    if not head.startswith(MAGIC):
        raise DamagedCheckpoint("it does not begin with the header of this version's checkpoints")
    if head != MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise DamagedCheckpoint("its digest does not match")
    try:
        size = int.from_bytes(body[:8], "little")
        facts = json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["facts"])
        return load(body), dict(facts)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise DamagedCheckpoint(f"its digest matches, but it holds no checkpoint ({error})") from None


def flatten(tree: Any, prefix: str = "") -> dict[str, Tensor]:
    """Leaves by name, such as "rates/conv1.weight", copied to the CPU for safetensors.

    Raises ValueError if two leaves have the same name.
    """
    named = {name: leaf.detach().cpu().contiguous().clone() for name, leaf in named_leaves(tree, prefix)}
    if len(named) != len(pytree.tree_leaves(tree)):
        raise ValueError(f"{prefix}two leaves of the tree have the same name")
    return named


def fill(template: Any, tensors: dict[str, Tensor], prefix: str = "") -> Any:
    """A tree like ``template`` with leaves from ``tensors``: the inverse of `flatten`.

    Raises DamagedCheckpoint if a name, shape or type differs, or if ``tensors`` has more names with this prefix.
    """
    known = {name for name, _ in named_leaves(template, prefix)}
    if left := {name for name in tensors if name.startswith(prefix)} - known:
        raise OtherVersion(f"{min(left)} has no place in this run")
    leaves: list[Tensor] = []
    for name, leaf in named_leaves(template, prefix):
        found = tensors.get(name)
        if found is None or (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
            has = "missing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise DamagedCheckpoint(f"{name} should be {leaf.dtype} {list(leaf.shape)}, and is {has}")
        leaves.append(found.to(leaf.device))
    return pytree.tree_unflatten(leaves, pytree.tree_structure(template))


def named_leaves(tree: Any, prefix: str = "") -> list[tuple[str, Tensor]]:
    """Each leaf with its name, such as "rates/conv1.weight"."""
    pairs, _ = pytree.tree_flatten_with_path(tree)
    return [(prefix + "/".join(map(_key_name, path)), leaf) for path, leaf in pairs]


def _key_name(key: Any) -> str:
    """One part of a leaf's path as text: a dict's key, a tuple's index or a NamedTuple's field."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"{key!r}: not a part of a path in a tree")
