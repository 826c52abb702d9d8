"""Start training from a trained model."""

from torch import Tensor

from ..checkpoints.checkpoint_format import named_leaves
from ..errors import Error
from ..tree import map_leaves
from ..types import Params, Theta
from .find_model import find_model
from .model_file import read_model

PARAMS = "params/"  # prefix of the network's parameters, if theta has other tensors, too


def start_from(model: str, theta: Theta, params: Params) -> Theta:
    """Replace the tensors of theta by those of the model with the same name and shape.

    ``theta`` is the initial theta of the algorithm, ``params`` the parameters of its network. All other tensors stay
    unchanged, such as a head for another number of classes. Error if the model lacks a parameter of the network, or
    has it with another shape after the first axis.
    """
    path = find_model(model)
    saved, _ = read_model(path)
    by_name = {name.removeprefix(PARAMS): value for name, value in saved.items()}
    for name, value in params.items():
        found = by_name.get(name)
        if found is None or found.ndim != value.ndim or found.shape[1:] != value.shape[1:]:
            has = "nothing" if found is None else f"{list(found.shape)}"
            raise Error(
                f"train.start = {model}: {name} is {list(value.shape)} in the network of model.*, but {has} in that "
                f"model; give model.* as in its own run, or train.start=null train.baseline=false"
            )
    names = iter(named_leaves(theta))

    def started(leaf: Tensor) -> Tensor:
        name, _ = next(names)
        found = saved.get(name, by_name.get(name.removeprefix(PARAMS)))
        fits = found is not None and (found.shape, found.dtype) == (leaf.shape, leaf.dtype)
        return found.to(leaf.device) if found is not None and fits else leaf

    return map_leaves(started, theta)
