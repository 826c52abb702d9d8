"""The last layer for a number of classes that was not trained for.

Prototype and closed-form heads are made for each task, of any width. A head that was learnt has a row for each of the
ways of training, and a new task's labels are in no order: with other ways every class begins with the mean of those
rows, as in UNICORN-MAML (Ye and Chao, arXiv 2106.16245), which learns one row for all classes.
"""

from torch import Tensor

from ..tree import map_leaves
from ..types import Theta


def with_ways(theta: Theta, template: Theta) -> Theta:
    """theta with its head as wide as that of ``template``, the initial theta of the same network with other ways.

    Raises ValueError if something else than the head depends on the number of classes.
    """

    def resized(saved: Tensor, wanted: Tensor) -> Tensor:
        if saved.shape == wanted.shape:
            return saved
        if saved.ndim != wanted.ndim or saved.shape[1:] != wanted.shape[1:]:
            raise ValueError(f"a tensor {list(saved.shape)} cannot become {list(wanted.shape)}")
        return saved.mean(0, keepdim=True).expand_as(wanted).clone()

    return map_leaves(resized, theta, template)
