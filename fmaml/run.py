"""One experiment from its config to its report."""

import json
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from .build import Experiment, baseline, build
from .checkpoint import save_params
from .config import dump
from .errors import UserError
from .log import RunLog, clock
from .runtime import environment, keep_freed_memory, pick_device
from .train import meta_test, train
from .tree import leaves, map_leaves, take
from .types import Params, Theta

Contenders = dict[str, tuple[Experiment, Theta]]  # name -> what was trained, and the best theta
LABELS = {
    "transductive": "transductive (all queries together)",
    "inductive": "inductive (each query alone with the support set)",
}


def run(config: dict[str, Any], *, device: str = "auto", out: str | None = None, dry_run: bool = False) -> int:
    """Train, meta-test and report; returns the process's exit code."""
    console = Console()
    place = pick_device(device)
    if place.type == "cpu":
        keep_freed_memory()
    experiment = build(config, place)
    theta = initial(experiment, config["seed"], place)
    try_out(config, experiment, theta)
    describe(console, config, experiment, theta, place)
    if dry_run:
        console.print("dry run: everything is in order; nothing was trained or written")
        return 0

    folder = make_folder(out, config["name"])
    write_text(folder / "config.yaml", dump(config))
    write_text(folder / "environment.json", json.dumps(environment(place), indent=2) + "\n")
    begun = time.perf_counter()
    learnt = fit(console, folder, config, experiment, theta)
    trained = time.perf_counter() - begun
    contenders = {config["algorithm"]["name"]: (experiment, learnt)}
    if config["train"]["baseline"]:
        console.print("the baseline: the same network trained jointly, then fine-tuned")
        (folder / "joint").mkdir()
        rival = baseline(config, experiment)
        contenders["joint training, fine-tuned"] = rival, fit(console, folder / "joint", config, rival, theta)
    console.print(f"trained in {clock(trained)}; meta-testing on {config['eval']['tasks']} tasks ...", highlight=False)
    finish(console, folder, config, contenders, trained)
    return 0


def fit(console: Console, folder: Path, config: dict[str, Any], experiment: Experiment, theta: Theta) -> Theta:
    """Train, with metrics.jsonl and the best and last parameters in the folder."""
    with RunLog(folder / "metrics.jsonl", config["train"]["meta_steps"], experiment.source.metric, console) as log:
        return train(experiment, theta, log, partial(save, folder), config["eval"]["steps"], **config["train"])


def initial(experiment: Experiment, seed: int, device: torch.device) -> Theta:
    """The first theta: drawn on the CPU, so that a seed means the same on every device."""
    params = experiment.model.init(torch.Generator().manual_seed(seed))
    return map_leaves(lambda leaf: leaf.to(device), params)


@torch.no_grad()
def try_out(config: dict[str, Any], experiment: Experiment, params: Params) -> None:
    """The loss of one task, so that an algorithm that cannot work here says so before anything is written."""
    algorithm, tasks = experiment.algorithm, experiment.source.sample("train", 0, range(1))
    try:
        algorithm.loss(algorithm.init(params), take(tasks, 0))
    except ValueError as error:
        raise UserError(f"algorithm.name = {config['algorithm']['name']}: {error}") from error


def describe(
    console: Console, config: dict[str, Any], experiment: Experiment, theta: Theta, device: torch.device
) -> None:
    size = sum(leaf.numel() for leaf in leaves(theta))
    console.print(
        f"[bold]{config['name']}[/]: {config['algorithm']['name']} on {config['data']['name']}, "
        f"{experiment.source.about['protocol']}; {config['model']['name']} with {size:,} parameters, on {device}",
        highlight=False,
        soft_wrap=True,
    )


def finish(console: Console, folder: Path, config: dict[str, Any], contenders: Contenders, trained: float) -> None:
    """Meta-test, table, results.json, pictures."""
    from . import report  # matplotlib takes half a second that the first training step need not wait for

    scores = {
        (name, setting): column
        for name, (experiment, theta) in contenders.items()
        for setting, column in meta_test(experiment, theta, **config["eval"]).items()
    }
    experiment, theta = next(iter(contenders.values()))
    source = experiment.source
    results = {label(key, len(contenders), len(source.settings)): column for key, column in scores.items()}
    protocol = report.protocol(config, source.about, clock(trained))
    title = f"{config['name']}: {source.metric.name} on unseen tasks"
    console.print(report.table(results, source.metric, title, protocol))
    evaluated = {"seed": config["seed"], **config["eval"], "training_seconds": round(trained, 1)}
    about = {**source.about, **evaluated, "protocol": protocol}
    report.write_results(folder / "results.json", results, source.metric, about)
    report.write_pictures(folder, experiment, theta, results, config["eval"]["steps"])
    console.print(f"everything is in {folder}", highlight=False, soft_wrap=True)


def label(key: tuple[str, str], contenders: int, settings: int) -> str:
    """A column's heading: what of (algorithm, setting) tells it from the others."""
    name, setting = key
    parts = [name] * (contenders > 1 or settings == 1) + [LABELS[setting]] * (settings > 1)
    return ", ".join(parts)


def save(folder: Path, name: str, theta: Theta) -> None:
    save_params(folder / f"{name}.safetensors", theta)


def write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


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
