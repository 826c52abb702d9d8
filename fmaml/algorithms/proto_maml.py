"""Proto-MAML (Triantafillou et al., arXiv 1903.03096, section 3): MAML whose head begins at the prototypes.

W_k = 2 c_k, b_k = -|c_k|^2, c_k the mean feature of class k;    then phi_i by ``steps`` inner steps, as in MAML

The meta-gradient passes through the prototypes as well.
"""

from functools import partial

from ..inner import trajectory
from ..linear import features, labels, outputs_of, with_head
from ..losses import Apply
from ..outer import query_loss
from ..ranges import Natural, Rate
from ..types import Algorithm, Batch, LossFn, Optimizer, Params


def proto_maml(
    loss_fn: LossFn,
    apply: Apply,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("*",),
    head: str = "head",
) -> Algorithm:
    """MAML from a head that is already the nearest-prototype classifier of the task; classification only.

    The network's last layer ``head`` is replaced for each task; its own values stand idle in theta.
    """

    def init(params: Params) -> Params:
        outputs_of(params, head)
        return dict(params)

    def start(theta: Params, support: Batch) -> Params:
        member = labels(support, theta, head, "proto_maml")  # [n, ways]
        f = features(apply, theta, support.x, head)  # [n, features]
        c = member.T @ f / member.sum(0).clamp(min=1)[:, None]  # [ways, features]
        return with_head(theta, 2 * c, -c.square().sum(1), head)

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        phi = start(theta, support)
        return trajectory(loss_fn, phi, support, inner_lr, steps=steps, first_order=first_order, only=only)

    def adapt(theta: Params, support: Batch) -> Params:
        return phis(theta, support)[-1]

    return Algorithm(init, adapt, partial(query_loss, loss_fn, adapt), phis)
