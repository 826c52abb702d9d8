"""What a tokenizer of transformers returns, as a tree of tensors like a dict."""

import contextlib
import sys
from collections.abc import Iterable
from typing import Any

from torch.utils import _pytree as pytree


def know_batch_encodings() -> None:
    """From now on all of torch takes a `BatchEncoding` for a tree, if transformers is loaded."""
    transformers: Any = sys.modules.get("transformers.tokenization_utils_base")
    if transformers is None:
        return
    kind = transformers.BatchEncoding

    def flatten(encoding: Any) -> tuple[list[Any], list[str]]:
        return list(encoding.values()), list(encoding.keys())

    def unflatten(values: Iterable[Any], keys: list[str]) -> Any:
        return kind(dict(zip(keys, values, strict=True)))

    with contextlib.suppress(ValueError):  # it is known already
        pytree.register_pytree_node(kind, flatten, unflatten, serialized_type_name="transformers.BatchEncoding")
