"""The settings of the sections `train` and `eval`. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from ..setting_types import Batching, Count, Decay, FreeOnResume, Meaning, Natural, Precision, Rate, Size

AVERAGE = Meaning("validate, test and keep the moving average of theta with this decay")
PATIENCE = Meaning("stop after this many validations without a new best; a cosine schedule is not shortened")
INDUCTIVE = Meaning("also test each query alone with the support set, which takes longest")
LOG_TO = Meaning("also send the rows of metrics.jsonl there")
Config: TypeAlias = dict[str, Any]  # section -> key -> value, plain data that YAML and JSON can hold


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Train for ``meta_steps`` on the train split, and keep the theta with the best score on the val split."""

    meta_steps: Natural
    meta_batch: Size  # tasks a meta-step
    meta_batch_for: Literal["all", "each"] = "all"  # the meta_batch of all processes together, or of each
    start: str | None = None  # a trained model to start from
    schedule: Literal["constant", "cosine"] = "constant"  # of the outer learning rate
    average: Annotated[Decay | None, AVERAGE] = None  # 0.99 averages over about the last hundred meta-steps
    clip: Rate | None = None  # the largest norm of a meta-gradient
    shard_optimizer: bool = False  # whether each process keeps the optimizer's state of only a part of theta
    batching: Batching = "auto"
    chunk_size: Count | None = None  # tasks in memory at a time
    compile: bool | Literal["auto", "graph"] = "auto"
    precision: Precision = "float32"
    validate_every: Annotated[Count, FreeOnResume] = 500
    validate_tasks: Count = 200
    patience: Annotated[Count | None, FreeOnResume, PATIENCE] = None
    log_every: Annotated[Count, FreeOnResume] = 20
    log_to: Annotated[Sequence[Literal["csv", "tensorboard", "wandb"]], FreeOnResume, LOG_TO] = ()
    save_every: Annotated[Count, FreeOnResume] = 500
    on_nan: Annotated[Literal["stop", "skip"], FreeOnResume] = "stop"
    skip_limit: Annotated[Count, FreeOnResume] = 10
    # a baseline to report beside the algorithm; true is joint, start is the model of train.start
    baseline: Annotated[bool | Literal["joint", "fine_tune", "start"], FreeOnResume] = False

    def tasks_of(self, processes: int) -> int:
        """The number of tasks of a meta-step, over all processes."""
        return self.meta_batch * (processes if self.meta_batch_for == "each" else 1)

    def out_of_patience(self, without_best: int) -> bool:
        """Whether training ends after ``without_best`` validations in a row without a new best."""
        return self.patience is not None and without_best >= self.patience


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """Meta-test on ``tasks`` unseen tasks: the metric after 0 .. ``steps`` inner steps, in each protocol."""

    tasks: Annotated[Count, FreeOnResume] = 600
    steps: Natural = 10
    inductive: Annotated[bool, FreeOnResume, INDUCTIVE] = True
