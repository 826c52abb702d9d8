"""The experiments that are packaged with fmaml, and how a name on the command line finds one."""

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import UserError

FOLDER = Path(__file__).parent.parent / "experiments"


def names() -> list[str]:
    """Such as "omniglot" and "paper/omniglot_5w1s": the main experiments first."""
    found = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")]
    return sorted(found, key=lambda name: (name.count("/"), name))


def headline(name: str) -> str:
    """The first line of the experiment's header."""
    with (FOLDER / f"{name}.yaml").open(encoding="utf-8") as lines:
        return lines.readline().lstrip("# ").strip()


def header(name: str) -> dict[str, str]:
    """What the experiment's header says in lines of a word and its value, such as ours, costs and commit."""
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    pairs = [re.split(r"\s{2,}", line.removeprefix("#").strip(), maxsplit=1) for line in lines]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[0].isalpha()}


def find_experiment(experiment: str, note: Callable[[str], None]) -> Path:
    """The file that ``experiment`` names: an existing path, or else one of the experiments above."""
    if os.path.exists(experiment) and not os.path.isdir(experiment):
        return Path(experiment)
    name = experiment.removesuffix(".yaml").removeprefix("experiments/")
    if name in names():
        path = FOLDER / f"{name}.yaml"
        if experiment.startswith("experiments/"):
            note(f"no {experiment} in this folder; using {path}, which came with fmaml")
        return path
    raise UserError(_not_found(experiment, name))


def _not_found(experiment: str, name: str) -> str:
    if os.path.isdir(experiment):
        return f"{experiment}: is a folder; give a YAML file in it, or a name that `fmaml ls` lists"
    near = difflib.get_close_matches(name, names(), 1)
    cure = f"did you mean {near[0]}? " if near else ""
    return f"{experiment}: no such file, and no experiment of that name; {cure}`fmaml ls` lists them"
