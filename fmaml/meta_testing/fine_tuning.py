"""The baseline for pretrained networks: fine-tune the network on each support set, without meta-training."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..config.build import Experiment, call_by_name
from ..config.registry import find_entry
from ..config.settings import Config
from ..types import Params
from .scores import interval, task_scores

RATES = {"sgd": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0), "adam": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)}  # inner -> rates


class FineTuned(NamedTuple):
    """The way of fine-tuning with the best score on validation tasks."""

    name: str  # such as "fine-tuned by adam at 0.001"
    section: Config  # the settings of its algorithm
    experiment: Experiment


def candidates(data: str, params: Params) -> Iterator[tuple[str, Config]]:
    """Names and algorithm sections: SGD and Adam with each rate, from the given head.

    For classes and a network with a layer ``head``, also from a head of prototypes.
    """
    heads = {"scratch": ""}
    if "classes" in find_entry("data", data).gives and {"head.weight", "head.bias"} <= params.keys():
        heads["proto_maml"] = " from prototypes"
    for algorithm, head in heads.items():
        for inner, rates in RATES.items():
            for rate in rates:
                section = {"name": algorithm, "inner_lr": rate, "steps": 1, "inner": inner}
                yield f"fine-tuned{head} by {inner} at {rate:g}", section


def fine_tuned(config: Config, experiment: Experiment, params: Params, advance: Callable[[], None]) -> FineTuned:
    """Choose the candidate with the best metric on validation tasks, averaged over 1 .. ``eval.steps`` inner steps.

    The algorithm's theta is chosen on the same tasks. Fine-tuning starts at ``params``. ``advance`` is called after
    each candidate.
    """
    better = 1 if experiment.source.metric.more_is_better else -1
    best, found = -math.inf, None
    for name, section in candidates(config["data"]["name"], params):
        algorithm: Any = call_by_name("algorithm", section, loss_fn=experiment.loss_fn, apply=experiment.model.apply)
        tried = experiment._replace(algorithm=algorithm)
        theta = algorithm.init(params)
        tasks, steps = config["train"]["validate_tasks"], config["eval"]["steps"]
        score = (
            better
            * interval(task_scores(tried, tried.source.settings[0], theta, "val", tasks, steps)[:, 1:].mean(1)).mean
        )
        advance()
        if found is None or score > best:  # NaN is never better
            best, found = score, FineTuned(name, section, tried)
    assert found is not None
    return found
