"""Proto-MAML with parts of MAML++: prototypes, learnt rates, and a loss after every inner step.

Start (arXiv 1903.03096):    W_k = 2 s c_k, b_k = -s |c_k|^2, c_k the mean feature of class k and s a learnt scale
Inner step k, layer l:       phi_l = phi_l - alpha_lk * grad_l L(phi, D_i^tr), alpha learnt        (arXiv 1810.09502)
Outer loop:                  sum_k w_k L(phi_ik, D_i^ts), the weights w_k move to the last step    (arXiv 1810.09502)
"""

from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor

from ..anneal import multi_step
from ..head import head_weight, prototypes
from ..inner import inner_rule
from ..losses import Apply
from ..setting_types import Natural, PositiveSteps, Rate, Rule
from ..tree import map_leaves
from ..types import Algorithm, Batch, InnerRate, LossFn, Params
from ..unroll import descent_by_step, unrolled


class ProtoMamlppTheta(TypedDict):
    """The parameters, their rates for each inner step, and the head's scale."""

    params: Params
    rates: Params  # [steps], with the same names
    scale: Tensor  # scalar


def proto_mamlpp(
    loss_fn: LossFn,
    apply: Apply,
    *,
    inner_lr: Rate,
    steps: PositiveSteps,
    multi_step_until: Natural = 0,
    scale: Rate = 1.0,
    first_order: bool = False,
    only: Sequence[str] = ("*",),
    head: str = "head",
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm[ProtoMamlppTheta]:
    """Proto-MAML with learnt rates and a loss after every inner step, as in MAML++; classification only.

    Args:
        apply: the model's forward pass, the one in ``loss_fn``.
        inner_lr: the initial value of the rates, above 0.
        steps: inner steps, 1 or more; further steps use the rate of the last one.
        multi_step_until: until this meta-step the loss is a weighted sum over all inner steps, and ``remat`` saves no
            memory.
        scale: the initial value of the head's learnt scale, above 0.
        head: the name of the network's last linear layer. It is replaced for each task; its values in theta are unused.
        loss_fn, first_order, only, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is {"params": .., "rates": name -> [steps], "scale": a scalar}.

    Raises:
        ValueError: from ``init``: the model has no such layer; on use: the targets are not class labels.

    Source: after arXiv 1903.03096 and 1810.09502.

    >>> import torch, fmaml
    >>> model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    >>> algorithm = fmaml.proto_mamlpp(loss_fn, model.apply, inner_lr=0.01, steps=5)
    >>> algorithm.init(model.init(torch.Generator()))["rates"]["conv1.weight"]
    tensor([0.0100, 0.0100, 0.0100, 0.0100, 0.0100])
    """

    def init(params: Params) -> ProtoMamlppTheta:
        weight = head_weight(params, head)
        rates = map_leaves(lambda p: p.new_full((steps,), inner_lr), params)
        return {"params": dict(params), "rates": rates, "scale": weight.new_full((), scale)}

    def start(theta: ProtoMamlppTheta, support: Batch) -> Params:
        phi = prototypes(apply, theta["params"], support, head, "proto_mamlpp")
        return phi | {f"{head}.{part}": theta["scale"] * phi[f"{head}.{part}"] for part in ("weight", "bias")}

    def rule(theta: ProtoMamlppTheta) -> InnerRate:
        return inner_rule(inner, descent_by_step(theta["rates"]))

    last_loss = unrolled(
        loss_fn, rule, steps=steps, init=init, start=start, first_order=first_order, only=only, remat=remat
    )
    return multi_step(last_loss, loss_fn, until=multi_step_until)
