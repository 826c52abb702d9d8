"""What a training run continues from: its state, its best parameters, and how its steps are computed."""

from typing import NamedTuple

from ..optim.optimizers import AverageState
from ..types import MetaState, Theta

BITS_MAY_DIFFER = "results may now differ in the last bits from an uninterrupted run"


class StepForm(NamedTuple):
    """How meta-steps are computed, which a run finds out; it changes rounding, so a resumed run keeps to it."""

    compiled: bool | None = None  # None before the first step
    chunk_size: int | None = None


class Progress(NamedTuple):
    """Everything that a run continues from. Sampling depends on (seed, step) alone, so no generator state is saved."""

    state: MetaState
    best: float  # the best validation score, signed so that higher is better; -inf if there is none yet
    best_theta: Theta
    validated: int = 0  # the last step that was validated
    skipped: int = 0  # number of steps discarded because a number was not finite
    step_form: StepForm = StepForm()
    without_best: int = 0  # validations since the best one

    @property
    def model(self) -> Theta:
        """What is validated, tested and kept: theta's average where the optimizer keeps one, else theta itself."""
        return self.state.opt_state.average if isinstance(self.state.opt_state, AverageState) else self.state.theta
