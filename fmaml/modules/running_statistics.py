"""Running statistics of norm layers as explicit state, without writing to a buffer."""

# only private base classes of torch.nn cover all norm layers with statistics, and its hooks have no types:
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from ..torch_fixes.functions import EXACT, ExactFunctions
from ..torch_fixes.unsupported_layers import keeps_running_statistics, prepare
from ..types import Params
from .calls import arguments
from .dropout import Keyed, dropouts

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def running_statistics(module: nn.Module, params: Params, x: Any, statistics: Params | None = None) -> Params:
    """The running statistics of all norm layers after one more batch, as in a forward pass in training mode.

    This is a pure function, also under vmap. With phi and the support set of each task, each task gets its own
    statistics. `to_module` puts them into a module, and ``from_module(module, running_stats="frozen")`` uses them.

    Args:
        module: the network, with norms that keep running statistics; it is not changed.
        params: name -> tensor, such as phi; all other parameters keep the module's values.
        x: a batch, as the model of `from_module` takes it; dropout drops nothing unless it is `Keyed`.
        statistics: name -> tensor, the previous result of this function; None: the module's statistics.

    Returns:
        ``LAYER.running_mean``, ``LAYER.running_var`` and ``LAYER.num_batches_tracked`` of each such layer.

    Raises:
        ValueError: a name is not a parameter, or a norm gets one value for each channel, which has no variance.

    Source: arXiv 1502.03167, section 3.1, with torch's momentum and its variance over n - 1.

    >>> import torch, fmaml
    >>> norm = torch.nn.BatchNorm1d(1, momentum=0.5)
    >>> fmaml.running_statistics(norm, {}, torch.tensor([[1.0], [3.0]]))["running_mean"]
    tensor([1.])
    """
    network = copy.deepcopy(module)
    constants = {name: p.detach() for name, p in network.named_parameters()}
    known = dict(network.named_buffers()) | (statistics or {})
    if unknown := params.keys() - constants.keys():
        raise ValueError(f"running_statistics: {min(unknown)} is no parameter of the module")
    found: Params = {}
    for name, layer in cast(Iterator[tuple[str, Any]], network.named_modules()):
        if keeps_running_statistics(layer):
            hook = partial(add_statistics, found, known, f"{name}." if name else "")
            layer.register_forward_pre_hook(hook, with_kwargs=True)
        prepare(layer, "batch")
    x, keys = x if isinstance(x, Keyed) else (x, None)
    args, kwargs = arguments(x)
    with ExactFunctions(EXACT | dropouts(keys)):
        functional_call(network, {**constants, **params}, args, kwargs)
    return found


def add_statistics(
    found: Params, known: Params, prefix: str, layer: _NormBase, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]
) -> None:
    """A hook of a norm layer: update its statistics in ``found`` by its input, starting from those in ``known``."""
    x = args[0] if args else kwargs["input"]
    if isinstance(layer, _InstanceNorm) and x.ndim == layer._get_no_batch_dim():
        x = x[None]
    if x.numel() == x.shape[1]:
        raise ValueError(
            f"running_statistics: {prefix or 'the module.'}: one value for each channel has no variance; give more"
        )
    names = [prefix + name for name in BUFFERS]
    before = [found.get(name, known[name]) for name in names]  # a layer may be called more than once
    found.update(zip(names, after_batch(layer, x, *before), strict=True))


def after_batch(layer: _NormBase, x: Tensor, mean: Tensor, var: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Running mean and variance [channels], and the number of batches, after a batch x [n, channels, ..]."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    if isinstance(layer, _InstanceNorm):  # the mean over examples of each example's; torch does not count batches
        share = layer.momentum or 0.0
        now = x.mean(axes[1:]).mean(0), x.var(axes[1:]).mean(0)
    else:
        count = count + 1
        share = 1 / count.to(mean.dtype) if layer.momentum is None else layer.momentum
        now = x.mean(axes), x.var(axes)
    return (1 - share) * mean + share * now[0], (1 - share) * var + share * now[1], count
