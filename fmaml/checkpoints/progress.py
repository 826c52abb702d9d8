"""The progress of a training run: its state, its best parameters, and the form of its steps."""

from typing import Annotated, Any, NamedTuple

from annotated_types import Ge, Le

from ..files.schema import Number, Schema, Text, Whole
from ..optim.optimizers import AverageState
from ..types import MetaState, Theta

BITS_MAY_DIFFER = "results may now differ in the last bits from an uninterrupted run"


class StepForm(NamedTuple):
    """How meta-steps are computed. A run decides it; it affects rounding, so a resumed run keeps it."""

    compiled: bool | None = None  # None before the first step
    chunk_size: Annotated[Whole, Ge(1)] | None = None


class SavedConfig(Schema):
    """The sections of a config; their settings are compared with the given ones."""

    data: dict[str, Any]
    model: dict[str, Any]
    algorithm: dict[str, Any]
    optimizer: dict[str, Any]
    train: dict[str, Any]
    eval: dict[str, Any]


class SavedFacts(Schema):
    """The facts of a checkpoint: its progress, and the facts of its run from `collect_facts`."""

    step: Whole
    best: Number | None
    validated: Whole
    skipped: Whole
    without_best: Whole
    step_form: StepForm
    seconds: Annotated[float, Ge(0), Le(1e9)]
    config: SavedConfig
    algorithm: Text
    seed: int
    data: dict[str, Text]
    versions: dict[str, Text]
    machine: dict[str, Text | Whole]


class Progress(NamedTuple):
    """The whole state of a run. Sampling depends only on (seed, step), so no generator state is saved."""

    state: MetaState
    best: float  # the best validation score, signed so that higher is better; -inf if there is none yet
    best_theta: Theta
    validated: int = 0  # the last step that was validated
    skipped: int = 0  # number of steps discarded because a number was not finite
    step_form: StepForm = StepForm()
    without_best: int = 0  # validations since the best one

    @property
    def model(self) -> Theta:
        """The theta to validate, test and save: the optimizer's average if it has one, else theta itself."""
        return self.state.opt_state.average if isinstance(self.state.opt_state, AverageState) else self.state.theta
