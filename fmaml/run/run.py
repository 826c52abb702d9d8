"""One experiment from its config to its report."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ..atomic_files import write_durably
from ..config.load import dump
from ..errors import RunFailed, Stopped, UserError
from ..tree import leaves, map_leaves, take
from ..types import Params, Theta
from .build import Experiment, baseline, build
from .environment import environment, pick_device
from .log import RunLog, clock, rewind
from .memory import check_size, keep_freed_memory, sized
from .signals import caught
from .store.checkpoint_format import save_params
from .store.checkpoint_store import Keeper, Progress
from .store.resume_compatibility import facts
from .store.run_folder import run_folder, trouble
from .train import beginning, meta_test, references, train

Contenders = dict[str, tuple[Experiment, Theta]]  # name -> what was trained, and the best theta
LABELS = {
    "transductive": "transductive (all queries together)",
    "inductive": "inductive (each query alone with the support set)",
}


def run(
    config: dict[str, Any],
    *,
    device: str = "auto",
    out: str | None = None,
    dry_run: bool = False,
    resume: bool = False,
) -> int:
    """Train, meta-test and report; returns the process's exit code."""
    console = Console()
    place = pick_device(device)
    if place.type == "cpu":
        keep_freed_memory()
    with sized(config):
        experiment = build(config, place)
        check_size(config, experiment.model, place)
        theta = initial(experiment, config["seed"], place)
        try_out(config, experiment, theta)
    describe(console, config, experiment, theta, place)
    if dry_run:
        console.print("dry run: everything is in order; nothing was trained")
        return 0

    with run_folder(out, config["name"], resume) as folder, caught(), sized(config):
        try:
            work(console, folder, config, experiment, theta, place)
        except Stopped as stop:
            console.print(f"stopped; `fmaml resume {folder}` goes on", highlight=False, markup=False, soft_wrap=True)
            return stop.code
        except BrokenPipeError:  # of the console
            raise
        except OSError as error:
            raise RunFailed(f"{error.filename or folder}: {trouble(error, folder)}") from error
    return 0


def work(
    console: Console,
    folder: Path,
    config: dict[str, Any],
    experiment: Experiment,
    theta: Theta,
    place: torch.device,
) -> None:
    """All that is done in the run's folder, from wherever it was left."""
    known = facts(config, experiment.source, place)
    keeper = Keeper(folder, known)
    if not (folder / "config.yaml").exists():
        write_text(folder / "config.yaml", dump(config))
    progress = keeper.restore(beginning(experiment, theta), note)
    write_text(folder / "config.yaml", dump(config))  # that it may differ was checked just now
    write_text(folder / "environment.json", json.dumps(environment(place), indent=2) + "\n")
    learnt = fit(console, keeper, config, experiment, progress)
    trained = keeper.seconds()
    contenders = {config["algorithm"]["name"]: (experiment, learnt)}
    if config["train"]["baseline"]:
        console.print("the baseline: the same network trained jointly, then fine-tuned")
        (folder / "joint").mkdir(exist_ok=True)
        rival = baseline(config, experiment)
        keeper = Keeper(folder / "joint", known | {"algorithm": "joint"})
        progress = keeper.restore(beginning(rival, theta), note)
        contenders["joint training, fine-tuned"] = rival, fit(console, keeper, config, rival, progress)
    console.print(f"trained in {clock(trained)}; meta-testing on {config['eval']['tasks']} tasks ...", highlight=False)
    finish(console, folder, config, contenders, trained)


def fit(console: Console, keeper: Keeper, config: dict[str, Any], experiment: Experiment, progress: Progress) -> Theta:
    """Train, with metrics.jsonl, checkpoints and the best and last parameters in the folder."""
    path = keeper.folder / "metrics.jsonl"
    rewind(path, progress.state.step, progress.validated)
    steps, metric = config["train"]["meta_steps"], experiment.source.metric
    with RunLog(path, steps, metric, console, keeper.seconds()) as log:

        def save(progress: Progress) -> None:
            log.sync()  # no checkpoint without the rows before it
            keeper.save(progress)

        progress = train(experiment, progress, log, save, config["eval"]["steps"], **config["train"])
        save(progress)
    save_params(keeper.folder / "best.safetensors", progress.best_theta)
    save_params(keeper.folder / "last.safetensors", progress.state.theta)
    return progress.best_theta


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
        soft_wrap=not console.is_terminal,  # a log file gets one line
    )


def finish(console: Console, folder: Path, config: dict[str, Any], contenders: Contenders, trained: float) -> None:
    """Meta-test, table, results.json, pictures."""
    from ..run import report  # matplotlib takes half a second that the first training step need not wait for

    scores = {
        (name, setting): column
        for name, (experiment, theta) in contenders.items()
        for setting, column in meta_test(experiment, theta, **config["eval"]).items()
    }
    experiment, theta = next(iter(contenders.values()))
    source = experiment.source
    results = {label(key, len(contenders), len(source.settings)): column for key, column in scores.items()}
    results |= references(source, **config["eval"])
    protocol = report.protocol(config, source.about, clock(trained))
    title = f"{config['name']}: {source.metric.name} on unseen tasks"
    console.print(report.table(results, source.metric, title, protocol))
    evaluated = {"seed": config["seed"], **config["eval"], "training_seconds": round(trained, 1)}
    about = {**source.about, **evaluated, "protocol": protocol}
    report.write_results(folder / "results.json", results, source.metric, about)
    report.write_pictures(folder, experiment, theta, results, config["eval"]["steps"])
    console.print(f"everything is in {folder}", highlight=False, markup=False, soft_wrap=True)


def label(key: tuple[str, str], contenders: int, settings: int) -> str:
    """A column's heading: what of (algorithm, setting) tells it from the others."""
    name, setting = key
    parts = [name] * (contenders > 1 or settings == 1) + [LABELS[setting]] * (settings > 1)
    return ", ".join(parts)


def write_text(path: Path, text: str) -> None:
    write_durably(path, text.encode())


def note(line: str) -> None:
    print(f"fmaml: {line}", file=sys.stderr)
