"""Digests of tensors, to detect damaged or changed data."""

import hashlib

import torch
from torch import Tensor

MAX_ELEMENTS_PER_COPY = 1 << 26  # limits the memory of a copy from a GPU


def sha256_of(*parts: str | Tensor) -> str:
    """SHA-256 of texts and of the values of tensors, in this order, in hexadecimal digits.

    Shapes and types of tensors do not count; name them in a text. One core digests 1.7 GB/s: 0.05 s for Omniglot, 0.8 s
    for 60,000 images of 84x84x3.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
            continue
        for piece in part.detach().flatten().split(MAX_ELEMENTS_PER_COPY):
            digest.update(piece.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
