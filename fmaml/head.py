"""The head, a network's last linear layer: read its inputs, and replace its weight and bias.

The parameters of a head named "head" are ``head.weight`` [outputs, features] and ``head.bias`` [outputs]. With the
identity as weight the network returns the head's inputs, the features. So features need no second network.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .losses import Apply
from .torch_fixes.grad_levels import is_differentiated
from .types import Batch, Params

EMPTY_CLASS_SCORE = -1e9  # so low that a class without an example is never predicted


def features(apply: Apply, params: Params, x: Tensor, head: str) -> Tensor:
    """The inputs of the layer ``head``, [n, features]."""
    weight = head_weight(params, head)
    size = weight.shape[1]
    identity = torch.eye(size, dtype=weight.dtype, device=weight.device)
    return apply(with_head(params, identity, weight.new_zeros(size), head), x)


def with_head(params: Params, weight: Tensor, bias: Tensor, head: str) -> Params:
    """The parameters with this last layer: ``weight`` [outputs, features], ``bias`` [outputs]."""
    return {**params, f"{head}.weight": weight, f"{head}.bias": bias}


def head_weight(params: Params, head: str) -> Tensor:
    """The weight [outputs, features] of the layer ``head``; ValueError if the network has no such layer."""
    weight = params.get(f"{head}.weight")
    if weight is None or weight.ndim != 2 or f"{head}.bias" not in params:
        raise ValueError(
            f"head = {head!r}: there is no linear layer {head}.weight with {head}.bias; there are {list(params)}"
        )
    return weight


def labels(batch: Batch, params: Params, head: str, algorithm: str) -> Tensor:
    """One-hot labels [n, outputs]; the row of a label that is not a class, such as padding, is 0.

    Raises ValueError if the targets are not one class number for each row.
    """
    check_classes(batch, algorithm)
    weight = head_weight(params, head)
    return (batch.y[:, None] == torch.arange(len(weight), device=batch.y.device)).to(weight.dtype)


def check_classes(batch: Batch, algorithm: str) -> None:
    """ValueError unless the targets are one class number for each row."""
    if batch.y.is_floating_point() or batch.y.ndim != 1:
        raise ValueError(f"{algorithm}: needs one class label for each example; use maml for other targets")


def prototypes(apply: Apply, params: Params, support: Batch, head: str, algorithm: str) -> Params:
    """The parameters with the nearest-class-mean classifier as head: -|f - c_k|^2 = 2 c_k' f - |c_k|^2 - |f|^2.

    Raises ValueError if they are differentiated and have no layer but the head, which no gradient reaches.
    """
    if params.keys() == {f"{head}.weight", f"{head}.bias"} and is_differentiated(params):
        raise ValueError(
            f"{algorithm}: only {head} is trainable, and each task computes it anew, so nothing is learnt; "
            f"learn a layer below it, or use maml or r2d2"
        )
    member = labels(support, params, head, algorithm)  # [n, ways]
    f = features(apply, params, support.x, head)  # [n, features]
    count = member.sum(0)  # [ways]
    c = member.T @ f / count.clamp(min=1)[:, None]  # [ways, features]
    return with_head(params, 2 * c, torch.where(count > 0, -c.square().sum(1), EMPTY_CLASS_SCORE), head)


def cosine_prototypes(apply: Apply, params: Params, support: Batch, head: str, algorithm: str) -> Params:
    """The parameters with the class means of the features' directions as head: |f| cos(f, c_k)."""
    member = labels(support, params, head, algorithm)  # [n, ways]
    f = normalize(features(apply, params, support.x, head), dim=1)  # [n, features]
    c = normalize(member.T @ f, dim=1)  # [ways, features]
    return with_head(params, c, c.new_zeros(len(c)).where(member.sum(0) > 0, EMPTY_CLASS_SCORE), head)


def cosine_ridge(apply: Apply, params: Params, support: Batch, ridge: float, head: str, algorithm: str) -> Params:
    """The parameters with the ridge regression of one-hot labels on the features' directions as head."""
    member = labels(support, params, head, algorithm)  # [n, ways]
    f = normalize(features(apply, params, support.x, head), dim=1)  # [n, features]
    w = ridge_regression(f * member.sum(1, keepdim=True), member, ridge)  # without padding
    return with_head(params, w.T, w.new_zeros(w.shape[1]).where(member.sum(0) > 0, EMPTY_CLASS_SCORE), head)


def ridge_regression(x: Tensor, y: Tensor, ridge: Tensor | float) -> Tensor:
    """The solution W [features, outputs] by Woodbury; x [n, features], y [n, outputs]."""
    ridged = ridge * torch.eye(len(x), dtype=x.dtype, device=x.device)
    return x.T @ cast(Any, torch.linalg).solve(x @ x.T + ridged, y)


def cosine_basis(rows: int, columns: int, like: Tensor) -> Tensor:
    """A matrix [rows, columns] of full rank from a cosine transform: initial values without random numbers."""
    if columns > rows:  # the columns of the transform repeat after ``rows`` of them
        return cosine_basis(columns, rows, like).T.contiguous()
    row = torch.arange(rows, dtype=like.dtype, device=like.device)[:, None] + 0.5
    column = torch.arange(columns, dtype=like.dtype, device=like.device)
    return torch.cos(math.pi / rows * row * column) * math.sqrt(2 / rows)
