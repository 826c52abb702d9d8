"""The packaged experiments, and how a name on the command line selects one."""

import difflib
import os
import re
from pathlib import Path

from ..errors import Error, Notify

FOLDER = Path(__file__).parent.parent / "experiments"


def experiment_names() -> list[str]:
    """The experiments' names, such as "omniglot" and "paper/omniglot_5w1s"; names without a folder come first."""
    paths = [path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.yaml")]
    return sorted([path.as_posix() for path in paths], key=lambda name: (name.count("/"), name))


def headline(name: str) -> str:
    """The first line of the experiment's header."""
    with (FOLDER / f"{name}.yaml").open(encoding="utf-8") as lines:
        return lines.readline().lstrip("# ").strip()


def header(name: str) -> dict[str, str]:
    """The key-value lines of the experiment's header, such as ours, costs and commit."""
    text, _, _ = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").partition("\n\n")
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, *value = re.split(r"\s{2,}", line.removeprefix("#").strip(), maxsplit=1)
        if value and key.isalpha():
            found[key] = value[0]
    return found


def find_experiment(experiment: str, notify: Notify) -> Path:
    """The file of an experiment: an existing path, or else a packaged experiment; Error if neither exists."""
    if os.path.exists(experiment) and not os.path.isdir(experiment):
        return Path(experiment)
    name = experiment.removesuffix(".yaml").removeprefix("experiments/")
    if name in experiment_names():
        path = FOLDER / f"{name}.yaml"
        if experiment.startswith("experiments/"):
            notify(f"no {experiment} in this folder; using {path}, which came with fmaml")
        return path
    raise Error(_not_found(experiment, name))


def _not_found(experiment: str, name: str) -> str:
    if os.path.isdir(experiment):
        return f"{experiment}: is a folder; give a YAML file in it, or a name that `fmaml ls` lists"
    closest = difflib.get_close_matches(name, experiment_names(), 1)
    cure = f"did you mean {closest[0]}? " if closest else ""
    return f"{experiment}: no such file, and no experiment of that name; {cure}`fmaml ls` lists them"
