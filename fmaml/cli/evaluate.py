"""`fmaml test`: meta-test a trained model, with its own or other settings and data."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ..calibration import read_calibration
from ..checkpoints.resume_compatibility import digest_of_split
from ..config.build import Experiment, call_by_name, outer_optimizer
from ..config.load import complete, read_config
from ..config.settings import Config, EvalSettings, TrainSettings
from ..config.validate import section_settings
from ..data.convert_images import of_form
from ..data.files.cache import fingerprint
from ..data.source import Source
from ..errors import Error, Stopped, exit_code, note
from ..files.cache_folder import cache_folder
from ..files.console import CleanConsole
from ..files.plain_text import counted
from ..files.standard_output import pipe_safe_stdout
from ..losses import supervised
from ..meta_testing.unknown_classes import calibrated
from ..models.blueprint import CRITERIA, check_trust
from ..models.learner import Learner
from ..models.load import load_for_test
from ..models.metadata import PRIVATE_SETTINGS, targets_of
from ..processes.environment import pick_device
from ..processes.join import Processes, joined
from ..processes.launcher import launched, report_once, time_limit
from ..processes.signals import deferred_signals
from ..processes.torch_settings import make_deterministic
from ..report import results as report
from ..training.finish import compared_with, score_all
from ..training.frozen_features import cache_frozen_features
from ..training.preflight import check_same_facts
from ..tree import leaves, map_leaves
from .all_classes import describe_all_classes

TASKS_OF_OWN_PICTURES = 100  # more tasks of the same few pictures tell little
OPEN_SECTIONS = ("data", "eval", "seed")  # of the config: they may change in a test of a trained model


def run_test(
    model: str, overrides: list[str], *, device: str = "auto", out: str | None = None, trust: bool = False
) -> int:
    """Meta-test a model and print the table; return the exit code.

    Scores stay in the user's cache folder until the test is complete, so that the same command continues after an
    interruption. Raises Error if the settings do not fit the model.
    """
    here = launched()
    with report_once(here):
        time_limit()
        if out:
            check_has_no_results(Path(out))
        learner = load_for_test(model, trust=trust)
        other_data = {"data", "data.name"} & values_by_key(overrides).keys()  # the user names the data, and trusts it
        check_trust(learner.metadata, ["optimizer"] if other_data else ["data", "optimizer"], model, trust)
        config = config_of_test(learner, model, overrides)
        torch_device = pick_device(device, here)
        make_deterministic(torch_device)
    with joined(here, torch_device) as processes:
        return test_in(processes, learner, model, config, torch_device, out)


def test_in(
    processes: Processes, learner: Learner, model: str, config: Config, torch_device: torch.device, out: str | None
) -> int:
    """Run the test in this process, after joining the others; return the exit code."""
    leads = processes.launched.rank == 0
    console = CleanConsole(file=pipe_safe_stdout()) if leads else Console(quiet=True)

    def read() -> Source:
        return call_by_name("data", config["data"], seed=config["seed"], device=torch_device)

    source = processes.first_on_machine(read)
    if learner.blueprint.form and source.form:
        source = of_form(source, learner.blueprint.form)
    check_fits(learner, source, config)
    settings = EvalSettings(**config["eval"])
    experiment, theta = as_experiment(learner, source, config, torch_device)
    if "head" in learner.blueprint.algorithm or source.outputs == learner.blueprint.outputs:  # or its loop is another
        experiment = cache_frozen_features(console, config, experiment, torch_device)
    data = {"test": digest_of_split(source, "test")}
    known = read_calibration(learner.metadata.get("calibration"))
    facts = {"data": data, "config": config["data"], "seed": config["seed"], "steps": settings.steps}
    check_same_facts({"config": config, "data": data})
    scores = folder_of_scores() / f"{config['name']}-{fingerprint(learner.metadata.get('digest'), facts)}.jsonl"
    try:
        with deferred_signals():
            name = config["algorithm"]["name"]
            results = score_all(console, scores if leads else None, {name: (experiment, theta)}, settings, facts)
    except Stopped as stop:
        note("stopped; the same command continues")
        return exit_code(stop)
    if not leads:
        return 0
    tested = f"{counted(settings.tasks, 'task')}, seed {config['seed']}"
    protocol = f"{source.about['protocol']} ({config['data']['name']}), {tested}"
    compared = compared_with(source, settings, results)
    results |= compared
    title = f"{learner.metadata['name']}: {source.metric.name} on unseen tasks"
    interval = "; ± is a 95 % interval over tasks" if settings.tasks > 1 else ""
    report.print_results(console, results, source.metric, title, protocol + interval)
    calibration = calibrated(experiment, theta, settings, known) if known or has_own_validation(source) else {}
    report.print_calibration(console, calibration)
    if config["data"].get("layout") == "all" and source.form:
        for line in describe_all_classes(learner, config["data"], source.form):
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    if out:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        about = {**source.about, "seed": config["seed"], **config["eval"], "model": model, "protocol": protocol}
        about["references"] = list(compared)
        about |= report.in_results(calibration)
        report.write_results(folder / "results.json", results, source.metric, about)
    scores.unlink(missing_ok=True)  # another process may have completed the same test
    return 0


def has_own_validation(source: Source) -> bool:
    """Whether the validation split is not the test split, as it is with ``data.layout=all``."""
    val, test = (leaves((source.data or {}).get(split, ())) for split in ("val", "test"))
    tensors = [pair for pair in zip(val, test, strict=True) if isinstance(pair[0], torch.Tensor)]
    return not all(torch.equal(a, b) for a, b in tensors)


def check_has_no_results(out: Path) -> None:
    """Raise Error if the path is a file, or a folder with results, such as those of a training run."""
    if out.exists() and not out.is_dir():
        raise Error(f"--out {out}: is a file; name a folder")
    if any((out / name).exists() for name in ("results.json", "config.yaml")):
        raise Error(f"--out {out}: has results already, and they are not overwritten; name another folder")


def folder_of_scores() -> Path:
    """The folder for the scores of unfinished tests: in the cache folder if it is writable, else a temporary one."""
    folder = cache_folder() / "tests"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        note(f"{folder}: {error.strerror}; an interrupted test will start again from the beginning")
        return Path(tempfile.mkdtemp(prefix="fmaml-"))
    return folder


def config_of_test(learner: Learner, model: str, overrides: list[str]) -> Config:
    """The model's config with the overrides for data and test; Error for a setting that is fixed in a model."""
    for text in overrides:
        key = text.partition("=")[0]
        if key.partition(".")[0] not in OPEN_SECTIONS:
            raise Error(f"command line: {key}: fixed in a trained model; test takes data.*, eval.* and seed")
    check_targets(learner, overrides)
    config = copy.deepcopy(learner.metadata["config"])
    if "data.name" not in values_by_key(overrides):
        config["data"] |= paths_of_data(Path(model))
    overrides = folder_overrides(learner, overrides)
    unused = ["train_ways", "train_shots"]  # a test has no training tasks
    if values_by_key(overrides).get("data.name") == "folder":
        unused.append("download")
    for key in unused:
        config["data"].pop(key, None)
    if config.get("train"):  # only to pass the check: a model does not hold the path of its start
        config["train"]["baseline"] = False
    if config["algorithm"].get("minibatch"):  # only to pass the check: the model keeps its own size
        config["algorithm"]["minibatch"] = 1
    return complete(config, Path(model), [*overrides, *form_overrides(learner, overrides)], note)


def paths_of_data(run: Path) -> dict[str, str]:
    """The paths of a run's data that still exist. A model leaves them out, but the folder of the run has them."""
    file = run / "config.yaml"
    data = read_config(file).get("data") if file.is_file() else None
    found = data if isinstance(data, dict) else {}
    return {key: path for key in PRIVATE_SETTINGS if (path := found.get(key)) and Path(path).exists()}


def folder_overrides(learner: Learner, overrides: list[str]) -> list[str]:
    """Add the settings that a user's folder implies: its data source, and fewer tasks, of all classes that fit."""
    given = values_by_key(overrides)
    if "data.root" not in given or learner.blueprint.form is None:
        return overrides
    named = overrides
    if "data.name" not in given:
        own = learner.metadata["config"]["data"]["name"]
        named = [*overrides, "data.name=folder"]
        if own != "folder":
            note(
                f"data.root: read as a folder of your own classes; for the files of {own} give data.name={own} as well"
            )
    if values_by_key(named)["data.name"] != "folder" or "data.layout" in given:
        return named
    lowered = not {"data.ways", "data.shots", "data.lower_sizes"} & given.keys()
    tasks = [] if "eval.tasks" in given else [f"eval.tasks={TASKS_OF_OWN_PICTURES}"]
    return [*named, "data.layout=all", *["data.lower_sizes=true"] * lowered, *tasks]


def values_by_key(overrides: list[str]) -> dict[str, str]:
    """Dotted key -> the text behind its equals sign."""
    return {key: value for key, _, value in (text.partition("=") for text in overrides)}


def check_targets(learner: Learner, overrides: list[str]) -> None:
    """Raise Error if the data in the overrides has other targets than the model's training data."""
    name = values_by_key(overrides).get("data.name", "")
    wanted = learner.blueprint.targets
    if section_settings("data", {"name": name}) is not None and targets_of(name) != wanted:
        raise Error(f"data.name = {name}: its targets are {targets_of(name)}, but the model was trained for {wanted}")


def form_overrides(learner: Learner, overrides: list[str]) -> list[str]:
    """Settings that convert other data's images to the model's form, as far as the data has such settings."""
    given = values_by_key(overrides)
    form = learner.blueprint.form
    if form is None or "data.name" not in given:
        return []
    taken = section_settings("data", {"name": given["data.name"]}) or {}
    return [
        f"data.{key}={str(value).lower()}"
        for key, value in form.of_model().items()
        if key in taken and f"data.{key}" not in given
    ]


def check_fits(learner: Learner, source: Source, config: Config) -> None:
    """Raise Error unless the data's examples have the model's input shape."""
    name = config["data"]["name"]
    if source.inputs != learner.blueprint.inputs:
        raise Error(
            f"data.name = {name}: its examples are {list(source.inputs)}, but the model takes "
            f"{list(learner.blueprint.inputs)}; give data of that shape"
        )


def as_experiment(learner: Learner, source: Source, config: Config, device: torch.device) -> tuple[Experiment, Any]:
    """The model as an experiment on this source, with a head for the source's outputs, and theta on the device."""
    (model, algorithm), theta = learner.for_outputs(source.outputs)
    if source.loss:
        loss_fn = source.loss(model.apply)
        algorithm = call_by_name("algorithm", config["algorithm"], loss_fn=loss_fn, apply=model.apply)
    else:
        loss_fn = supervised(model.apply, CRITERIA[learner.blueprint.targets])
    optimizer = outer_optimizer(config["optimizer"], TrainSettings(**config["train"]))
    looped = config["train"]["batching"] == "loop"
    experiment = Experiment(source, model, loss_fn, algorithm, optimizer, looped)
    return experiment, map_leaves(lambda leaf: leaf.to(device), theta)
