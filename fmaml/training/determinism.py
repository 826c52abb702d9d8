"""The same bits again on a GPU, as a resumed run promises."""

import os
from typing import Any, cast

import torch


def make_deterministic(device: torch.device) -> None:
    """Ask the libraries of a GPU for algorithms with the same result each time; a CPU's are so by themselves.

    An operation that has none says so by a warning. Must be called before the first product on the GPU.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS chooses by its free memory otherwise
    torch.use_deterministic_algorithms(True, warn_only=True)
    cast(Any, torch.utils.deterministic).fill_uninitialized_memory = False  # nothing reads it, and filling takes time
    torch.backends.cudnn.benchmark = False  # it chooses by times, which differ
