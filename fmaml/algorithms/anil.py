"""ANIL (Raghu, Raghu, Bengio and Vinyals, arXiv 1909.09157): an inner loop of the head only.

Inner step:    phi_head = head - alpha * grad_head L(theta, D_i^tr), ``steps`` times; phi_body = body
"""

from collections.abc import Sequence

from ..pickling import picklable
from ..setting_types import Rate, Rule, Steps
from ..types import Algorithm, InnerRate, LossFn, Params
from ..unroll import stepping, unrolled


@picklable
def anil(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: Steps,
    first_order: bool = False,
    only: Sequence[str] = ("head.*",),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm[Params]:
    """Adapt the head alone; the body is shared by all tasks and learnt in the outer loop.

    Args:
        only: patterns of the head's parameter names, such as ("layer3.*",) for an `fmaml.mlp` of two hidden layers.
        loss_fn, inner_lr, steps, first_order, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is the parameters. It raises ValueError where a pattern matches none of them.

    Source: arXiv 1909.09157.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.anil(loss_fn, inner_lr=0.1, steps=1, only=("layer2.*",))
    >>> theta = model.init(torch.Generator().manual_seed(0))
    >>> phi = algorithm.adapt(theta, fmaml.Batch(torch.ones(10, 1), torch.zeros(10, 1)))
    >>> torch.equal(phi["layer1.weight"], theta["layer1.weight"])
    True
    """
    step = stepping(inner, inner_lr)
    return unrolled(loss_fn, lambda theta: step, steps=steps, first_order=first_order, only=only, remat=remat)
