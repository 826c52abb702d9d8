"""Proto-MAML (Triantafillou et al., arXiv 1903.03096): MAML whose head begins at the prototypes.

W_k = 2 c_k, b_k = -|c_k|^2, c_k the mean feature of class k;    then phi_i by ``steps`` inner steps, as in MAML

The meta-gradient passes through the prototypes as well.
"""

from ..head import outputs_of, prototypes
from ..losses import Apply
from ..ranges import Natural, Rate, Rule
from ..types import Algorithm, Batch, LossFn, Optimizer, Params
from ..unroll import stepping, unrolled


def proto_maml(
    loss_fn: LossFn,
    apply: Apply,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("*",),
    head: str = "head",
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm:
    """MAML from a head that is already the nearest-prototype classifier of the task; classification only.

    The network's last layer ``head`` is replaced for each task; its own values stand idle in theta.
    """

    def init(params: Params) -> Params:
        outputs_of(params, head)
        return dict(params)

    def start(theta: Params, support: Batch) -> Params:
        return prototypes(apply, theta, support, head, "proto_maml")

    settings = {"steps": steps, "first_order": first_order, "only": only, "remat": remat}
    step = stepping(inner, inner_lr)
    return unrolled(loss_fn, lambda theta: step, init=init, start=start, **settings)
