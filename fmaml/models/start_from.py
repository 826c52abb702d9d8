"""Training that starts from a trained model."""

from torch import Tensor

from ..checkpoints.checkpoint_format import named_leaves
from ..errors import Error
from ..tree import map_leaves
from ..types import Params, Theta
from .find_model import find_model
from .model_file import read_model

PARAMS = "params/"  # before the names of the network's parameters, where theta holds more than those


def start_from(model: str, theta: Theta, params: Params) -> Theta:
    """theta with every tensor that the model has too, by name and shape.

    ``theta`` is that of the algorithm before training, ``params`` the network's. A head for another number of classes
    stays as it is, and so does what the model's algorithm had not learnt. Error if a parameter of the network is
    missing in the model, or has another shape below its first axis.
    """
    path = find_model(model)
    saved, _ = read_model(path)
    by_name = {name.removeprefix(PARAMS): value for name, value in saved.items()}
    for name, value in params.items():
        found = by_name.get(name)
        if found is None or found.ndim != value.ndim or found.shape[1:] != value.shape[1:]:
            has = "nothing" if found is None else f"{list(found.shape)}"
            raise Error(
                f"train.start = {model}: {name} is {list(value.shape)} in the network of model.*, and the model has "
                f"{has}; give the settings of the model's own network, or train.start=null to begin without it"
            )
    names = iter(named_leaves(theta))

    def started(leaf: Tensor) -> Tensor:
        name, _ = next(names)
        found = saved.get(name, by_name.get(name.removeprefix(PARAMS)))
        fits = found is not None and (found.shape, found.dtype) == (leaf.shape, leaf.dtype)
        return found.to(leaf.device) if found is not None and fits else leaf

    return map_leaves(started, theta)
