"""One experiment from its config to its report."""

import json
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from .build import Experiment, build
from .checkpoint import save_params
from .config import dump
from .errors import UserError
from .log import RunLog, clock
from .runtime import environment, keep_freed_memory, pick_device
from .train import meta_test, train
from .tree import leaves, map_leaves, take
from .types import Theta


def run(config: dict[str, Any], *, device: str = "auto", out: str | None = None, dry_run: bool = False) -> int:
    """Train, meta-test and report; returns the process's exit code."""
    console = Console()
    place = pick_device(device)
    if place.type == "cpu":
        keep_freed_memory()
    experiment = build(config, place)
    theta = initial(experiment, config["seed"], place)
    describe(console, config, experiment, theta, place)
    if dry_run:
        console.print("dry run: everything is in order; nothing was trained or written")
        return 0

    folder = make_folder(out, config["name"])
    (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(environment(place), indent=2) + "\n", encoding="utf-8")
    begun = time.perf_counter()
    with RunLog(folder / "metrics.jsonl", config["train"]["meta_steps"], console) as log:
        theta = train(experiment, theta, log, partial(save, folder), config["eval"]["steps"], **config["train"])
    trained = time.perf_counter() - begun
    console.print(f"trained in {clock(trained)}; meta-testing on {config['eval']['tasks']} tasks ...")
    results = meta_test(experiment, theta, **config["eval"])
    finish(console, folder, config, experiment, theta, results, trained)
    return 0


def initial(experiment: Experiment, seed: int, device: torch.device) -> Theta:
    """The first theta: drawn on the CPU, so that a seed means the same on every device."""
    params = experiment.model.init(torch.Generator().manual_seed(seed))
    return map_leaves(lambda leaf: leaf.to(device), params)


def describe(
    console: Console, config: dict[str, Any], experiment: Experiment, theta: Theta, device: torch.device
) -> None:
    about = experiment.source.about
    size = sum(leaf.numel() for leaf in leaves(theta))
    classes = ", ".join(f"{count} {split}" for split, count in about["classes"].items())
    console.print(
        f"[bold]{config['name']}[/]: {config['algorithm']['name']} on {config['data']['name']} ({classes} classes), "
        f"{about['ways']}-way {about['shots']}-shot, {config['model']['name']} with {size:,} parameters, on {device}",
        highlight=False,
        soft_wrap=True,
    )


def finish(
    console: Console,
    folder: Path,
    config: dict[str, Any],
    experiment: Experiment,
    theta: Theta,
    results: dict[str, Any],
    trained: float,
) -> None:
    """Table, results.json, pictures."""
    from . import report  # matplotlib takes half a second that the first training step need not wait for

    about = {
        **experiment.source.about,
        "data": config["data"]["name"],
        "tasks": config["eval"]["tasks"],
        "steps": config["algorithm"]["steps"],
        "seed": config["seed"],
        "training_seconds": round(trained, 1),
    }
    console.print(report.table(results, about, f"{config['name']}: accuracy on unseen classes"))
    report.write_results(folder / "results.json", results, about)
    report.save_figure(report.learning_curve(folder / "metrics.jsonl"), folder / "learning_curve.png")
    report.save_figure(report.accuracy_by_step(results, about), folder / "accuracy_by_step.png")
    task = take(experiment.source.sample("test", 0, range(1)), 0)
    report.save_figure(report.task_picture(task, predict(experiment, theta, task), about["ways"]), folder / "task.png")
    console.print(f"everything is in {folder}", highlight=False, soft_wrap=True)


@torch.no_grad()
def predict(experiment: Experiment, theta: Theta, task: Any) -> torch.Tensor:
    """The predicted class of each query of one task, [queries], on the CPU."""
    phi = experiment.algorithm.adapt(theta, task.support)
    return experiment.model.apply(phi, task.query.x).argmax(-1).cpu()


def save(folder: Path, name: str, theta: Theta) -> None:
    save_params(folder / f"{name}.safetensors", theta)


def make_folder(out: str | None, name: str) -> Path:
    """The run's own folder, new or empty: nothing is ever overwritten."""
    folder = Path(out) if out else Path("runs") / name / datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}; name a folder that can be written") from error
    if taken:
        raise UserError(f"--out {folder}: holds files already, and a run never overwrites; name a new folder")
    return folder
