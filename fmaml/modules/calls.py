"""Call a `torch.nn.Module`: its arguments, and the part of its result that is the output."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from torch import Tensor
from torch.utils import _pytree as pytree


def arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments for the module: by position, and by name."""
    if isinstance(x, Mapping):
        return (), dict(cast(Mapping[str, Any], x))
    return cast(tuple[Any, ...], x) if isinstance(x, tuple) else (x,), {}


def selected(result: Any, output: str | Callable[[Any], Tensor] | None) -> Tensor:
    """The part of a module's result that is the output; ValueError if it is not a tensor."""
    by_name = dict(cast(Mapping[str, Any], result)) if isinstance(result, Mapping) else {}
    if isinstance(output, str):
        found = by_name[output] if output in by_name else getattr(cast(Any, result), output, None)
    else:
        found = output(result) if output else cast(Any, result)
    if isinstance(found, Tensor):
        return found
    parts = list(by_name)
    cure = f'output="{parts[0]}"' if parts else "output=lambda result: result[0]"
    named = f" with {', '.join(parts)}" if parts else ""
    kind = type(cast(Any, result)).__name__
    raise ValueError(
        f"from_module: output = {output!r} selects no tensor from the module's result, {kind}{named}; "
        f"select one, such as from_module(module, {cure})"
    )


def know_batch_encodings() -> None:
    """Register `BatchEncoding` as a tree with torch, if transformers is loaded."""
    transformers: Any = sys.modules.get("transformers.tokenization_utils_base")
    if transformers is None:
        return
    kind = transformers.BatchEncoding

    def flatten(encoding: Any) -> tuple[list[Any], list[str]]:
        return list(encoding.values()), list(encoding.keys())

    def unflatten(values: Iterable[Any], keys: list[str]) -> Any:
        return kind(dict(zip(keys, values, strict=True)))

    with contextlib.suppress(ValueError):  # already registered
        pytree.register_pytree_node(kind, flatten, unflatten, serialized_type_name="transformers.BatchEncoding")
