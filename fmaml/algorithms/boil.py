"""BOIL (Oh, Yoo, Kim and Yun, arXiv 2008.08882): an inner loop of the body only.

Inner step:    phi_body = body - alpha * grad_body L(theta, D_i^tr), ``steps`` times; phi_head = head
"""

from collections.abc import Sequence

from ..pickling import picklable
from ..setting_types import Rate, Rule, Steps
from ..types import Algorithm, InnerRate, LossFn, Params
from ..unroll import stepping, unrolled


@picklable
def boil(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: Steps,
    first_order: bool = False,
    only: Sequence[str] = ("conv*", "norm*"),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm[Params]:
    """Adapt all but the head, so that the representation must change from task to task.

    Args:
        only: patterns of the body's parameter names. The default is `fmaml.conv4`'s body, unless its norm is "none";
            `fmaml.resnet12`'s, for one, is ("block*",).
        loss_fn, inner_lr, steps, first_order, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is the parameters. It raises ValueError where a pattern matches none of them.

    Source: arXiv 2008.08882.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.boil(loss_fn, inner_lr=0.1, steps=1, only=("layer1.*",))
    >>> theta = model.init(torch.Generator().manual_seed(0))
    >>> phi = algorithm.adapt(theta, fmaml.Batch(torch.ones(10, 1), torch.zeros(10, 1)))
    >>> torch.equal(phi["layer2.weight"], theta["layer2.weight"])
    True
    """
    step = stepping(inner, inner_lr)
    return unrolled(loss_fn, lambda theta: step, steps=steps, first_order=first_order, only=only, remat=remat)
