"""The metadata of a model file, from the run that trained the model."""

from typing import Any, Literal, TypeAlias

from ..config.registry import find_entry
from ..config.settings import Config
from ..data.source import Source
from ..files.json_files import nan_to_null
from .model_file import Metadata

Targets: TypeAlias = Literal["classes", "values", "symbols", "own_loss"]
ENVIRONMENT = ("hardware", "python", "fmaml", "commit", "versions")
PRIVATE_SETTINGS = ("root", "file", "start")  # paths of the machine that trained the model


def describe(config: Config, source: Source, data: dict[str, str], measured: dict[str, Any]) -> Metadata:
    """The metadata of a model that a run trains, as known before meta-testing.

    ``data`` is the digest of each split, and ``measured`` the `environment` of the run. With the tensors, the metadata
    are a complete model: network, algorithm, preprocessing of images, and task.
    """
    return {
        "kind": "learner",
        "name": config["name"],
        "config": without_paths(config),
        "inputs": list(source.inputs),
        "outputs": source.outputs,
        "form": source.form.of_model() if source.form else None,
        "scaling": source.scaling._asdict() if source.scaling else None,
        "targets": targets_of(config["data"]["name"]),
        "steps": config["eval"]["steps"],
        "task": source.about["task"],
        "protocol": source.about["protocol"],
        "metric": source.metric.name,
        "results": None,
        "data": {"digest": data, "license": source.about.get("license", "none: made by fmaml")},
        "environment": {key: measured.get(key) for key in ENVIRONMENT},
    }


def targets_of(data: str) -> Targets:
    """The kind of targets of a data source, from its traits."""
    gives = find_entry("data", data).gives
    if "own_loss" in gives:
        return "own_loss"
    if "classes" in gives:
        return "classes"
    return "values" if "single_targets" in gives else "symbols"


def without_paths(config: Config) -> Config:
    """The config without paths of the machine."""
    return {
        key: {name: value for name, value in section.items() if name not in PRIVATE_SETTINGS}
        if isinstance(section, dict)
        else section
        for key, section in config.items()
    }


def with_results(metadata: Metadata, results: dict[str, list[Any]], tasks: int, seconds: float) -> Metadata:
    """The metadata with the results of meta-testing: column -> [mean, half of the 95 % interval] by inner step."""
    columns = {label: [[score.mean, score.ci95] for score in column] for label, column in results.items()}
    return {**metadata, "results": nan_to_null(columns), "tasks": tasks, "training_seconds": round(seconds, 1)}
