"""The packaged experiments and the examples of a checkout, and how a name on the command line selects one."""

import difflib
import os
import re
from pathlib import Path

from ..errors import Error, Notify

FOLDER = Path(__file__).parent.parent / "experiments"
EXAMPLES = FOLDER.resolve().parent / "examples"  # only in a checkout, where FOLDER is a link


def experiment_names() -> list[str]:
    """The experiments' names, such as "omniglot" and "paper/omniglot_5w1s"; names without a folder come first."""
    paths = [path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.yaml")]
    return sorted([path.as_posix() for path in paths], key=lambda name: (name.count("/"), name))


def example_files() -> list[Path]:
    """The examples of the checkout, relative to the current folder if they are in it."""
    here = Path.cwd()
    paths = sorted(EXAMPLES.glob("*/*.yaml"))
    return [path.relative_to(here) if path.is_relative_to(here) else path for path in paths]


def headline(experiment: str | Path) -> str:
    """The first line of the header of an experiment: a packaged one by its name, or a file."""
    path = experiment if isinstance(experiment, Path) else FOLDER / f"{experiment}.yaml"
    with path.open(encoding="utf-8") as lines:
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
    examples = {path.stem: str(path) for path in example_files()}
    known = {known: known for known in experiment_names()} | examples
    closest = difflib.get_close_matches(name, known, 1)
    cure = f"did you mean {known[closest[0]]}? " if closest else ""
    more = "" if examples else "; a checkout of fmaml has more, in examples/"
    return f"{experiment}: no such file, and no experiment of that name; {cure}`fmaml ls` lists them{more}"
