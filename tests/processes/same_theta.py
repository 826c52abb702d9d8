"""Trains some algorithms in float64 over the processes that `torchrun` has started, and saves theta and scores.

python -m torch.distributed.run --nproc-per-node N same_theta.py OUT
"""

import os
import sys

import torch
import torch.distributed as dist

from fmaml import distributed
from fmaml.checkpoints.checkpoint_format import flatten
from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.config.settings import TrainSettings
from fmaml.losses import transductive
from fmaml.meta_testing.scores import task_scores
from fmaml.training.resume_and_train import first_progress
from fmaml.training.run_experiment import initial_params
from fmaml.training.time_left import Pace, work_of
from fmaml.training.train import train
from fmaml.tree import map_leaves
from fmaml.types import Task

CPU = torch.device("cpu")
STEPS, BAD_STEP, BAD_TASK = 16, 6, 5
ALGORITHMS = {
    "maml": "{name: maml, inner_lr: 0.01, steps: 2}",
    "meta_sgd": "{name: meta_sgd, inner_lr: 0.01, steps: 1}",
    "imaml": "{name: imaml, inner_lr: 0.01, steps: 3}",
    "reptile": "{name: reptile, inner_lr: 0.01, steps: 3}",
}


class Rows:
    """The rows of a log, without their times."""

    def __init__(self, pace: Pace) -> None:
        self.rows: list = []
        self.pace = pace

    def record(self, kind, step, **numbers):
        self.rows.append((kind, step, {key: value for key, value in numbers.items() if key != "tasks_per_second"}))

    def notify(self, line):
        self.rows.append(line)


def trained(algorithm: str):
    words = [f"algorithm={algorithm}", f"train.meta_steps={STEPS}", "train.validate_every=6", "train.on_nan=skip"]
    config = load_config("sinusoid", [*words, "train.validate_tasks=40", "train.meta_batch=10", "train.compile=false"])
    experiment = build(config, CPU)
    source = experiment.source

    def sample(split: str, step: int, tasks: range) -> Task:
        drawn = map_leaves(torch.Tensor.double, source.sample(split, step, tasks))
        if split == "train" and step == BAD_STEP and BAD_TASK in tasks:
            drawn.support.y[tasks.index(BAD_TASK)] = torch.nan
        return drawn

    experiment = experiment._replace(source=source._replace(sample=sample))
    params = map_leaves(torch.Tensor.double, initial_params(experiment, 0, CPU))
    rows, settings = Rows(Pace(work_of(config, source, 0))), TrainSettings(**config["train"])
    progress = train(experiment, first_progress(experiment, params), rows, lambda progress: None, settings, 3)
    fixed = experiment.algorithm.init(params)
    scores = task_scores(experiment, transductive, fixed, "test", 50, 3, 8)
    return flatten(progress.state.theta), scores, rows.rows


if __name__ == "__main__":
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    results = {name: trained(algorithm) for name, algorithm in ALGORITHMS.items()}
    for theta, _, _ in results.values():
        assert distributed.all_equal(torch.cat([leaf.flatten() for leaf in theta.values()]))
    if distributed.rank() == 0:
        torch.save(results, sys.argv[1])
    if dist.is_initialized():
        dist.destroy_process_group()
