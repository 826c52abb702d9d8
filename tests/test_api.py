"""What scripts may import, and which file may import which."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest

import fmaml

pytestmark = pytest.mark.core

ROOT = Path(fmaml.__file__).parent
CONTRACT = (
    "supervised inner_update trajectory adapt meta_loss meta_grad meta_step init_state evaluate maml mlp conv4 "
    "from_module sgd momentum adam adamw chain clip_by_global_norm cosine query_loss cross_entropy mse accuracy "
    "Params Batch Task Model Algorithm Optimizer MetaState"
).split()
PURE = ("core", "torch_fixes", "optim", "algorithms", "nn")  # no files, devices or global random numbers
ALLOWED = {  # a room may import itself and these, which come before it; the top level of the package is the core
    "core": {"optim", "torch_fixes"},  # two of its files: a rate as an optimizer, exact derivatives
    "files": {"core"},
    "native": {"core", "files"},
    "torch_fixes": {"core", "native"},
    "optim": {"core", "torch_fixes"},
    "algorithms": {"core", "optim", "torch_fixes"},
    "nn": {"core", "torch_fixes"},
    "modules": {"core", "nn", "torch_fixes"},
    "processes": {"core"},
    "data": {"core", "files"},
    "config": {"core", "data", "files", "optim", "processes"},
    "checkpoints": {"core", "config", "data", "files", "native", "optim", "processes"},
    "models": {"core", "checkpoints", "config", "data", "files", "torch_fixes"},
    "meta_testing": {"core", "checkpoints", "config", "data", "files", "processes", "torch_fixes"},
    "report": {"core", "checkpoints", "config", "data", "files", "meta_testing", "models"},
    "training": {
        *("core", "checkpoints", "config", "data", "files", "meta_testing", "models", "modules", "optim", "processes"),
        *("report",),
    },
    "recipes": {"core", "data", "processes"},
    "export": {"core", "data", "files", "models", "torch_fixes"},
    "demo": {"core", "data", "models"},
    "sweep": {"core", "checkpoints", "config", "files", "processes", "report", "training"},
    "cli": {
        *("core", "checkpoints", "config", "data", "demo", "export", "files", "meta_testing", "models", "processes"),
        *("report", "sweep", "training"),
    },
}
NOT_PURE = {"errors", "extras", "__init__", "__main__"}  # files at the top that are not the core
TORCHLESS = """
    errors setting_types config.load config.listing data.dataset_facts data.images.scan data.files.cache_files
    files.atomic processes.signals processes.limits checkpoints.run_folder checkpoints.run_lock checkpoints.folder_watch
    models.model_card models.find_model report.run_list report.compare report.compare_page report.run_sections
    cli.main cli.arguments cli.run_commands cli.report_commands cli.model_commands cli.adapt_command cli.demo_command
    sweep.command sweep.workers
""".split()


def imports(path: Path) -> set[str]:
    """The files and rooms of fmaml that a file imports; imports for type checkers and in functions too."""
    here = path.relative_to(ROOT).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level]
            module = (*base, *(node.module.split(".") if node.module else ()))
            found |= {"/".join(module)} if module else {alias.name for alias in node.names}
    return found


def room_of(name: str) -> str:
    """The room of a file, given by its path in the package; a file at the top is one of the core."""
    room, slash, _ = name.partition("/")
    return room if slash or (ROOT / room).is_dir() else "core"


def files_of(room: str) -> list[Path]:
    return [path for path in ROOT.rglob("*.py") if room_of(str(path.relative_to(ROOT))) == room]


@pytest.mark.parametrize("name", CONTRACT)
def test_public_name(name):
    assert getattr(fmaml, name) is not None
    assert name in dir(fmaml)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'mamml'"):
        cast(Any, fmaml).mamml  # noqa: B018


def test_public_list_is_what_type_checkers_read():
    assert set(fmaml.__all__) >= set(CONTRACT)
    for name in fmaml.__all__:
        assert getattr(fmaml, name) is not None


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_what_it_may(room):
    found = {path: {room_of(name) for name in imports(path)} for path in files_of(room) if path.stem != "__main__"}
    wrong = {path.name: others - ALLOWED[room] - {room} for path, others in found.items()}
    assert not {name: others for name, others in wrong.items() if others}, "see the directions in CONTRIBUTING.md"


def test_every_room_has_its_direction():
    assert {room_of(str(path.relative_to(ROOT))) for path in ROOT.rglob("*.py")} == set(ALLOWED)


def test_no_room_imports_one_that_imports_it():
    """But for the core, whose files stand beside optimizers and fixes that are built of others of them."""
    rooms = list(ALLOWED)
    for place, room in enumerate(rooms[1:], 1):
        assert ALLOWED[room] <= set(rooms[:place])


def test_no_file_imports_itself_by_way_of_others():
    later = {str(path.relative_to(ROOT).with_suffix("")): imports(path) for path in ROOT.rglob("*.py")}
    while free := {name for name, others in later.items() if not others & set(later)}:
        later = {name: others for name, others in later.items() if name not in free}
    assert not later


def test_no_room_is_a_drawer():
    """No folder holds more than 20 files."""
    folders = {path.parent for path in ROOT.rglob("*.py")}
    sizes = {folder: sum(not path.stem.startswith("__") for path in folder.glob("*.py")) for folder in folders}
    assert {folder: size for folder, size in sizes.items() if size > 20} == {}


def test_the_outer_loop_is_given_an_algorithm():
    for name in ("types", "tree", "inner", "outer"):
        assert not any(other.startswith("algorithms") for other in imports(ROOT / f"{name}.py"))


def test_no_algorithm_imports_another():
    for path in (ROOT / "algorithms").glob("*.py"):
        assert not any(name.startswith("algorithms") for name in imports(path))


def test_these_import_no_torch():
    """One process imports them all, and stops at the first that imports torch."""
    code = """for name in sys.argv[1:]:
        importlib.import_module(f"fmaml.{name}")
        "torch" in sys.modules and sys.exit(f"fmaml.{name} imports torch")"""
    subprocess.run([sys.executable, "-c", f"import importlib, sys\n{code}", *TORCHLESS], check=True)


def test_core_has_no_side_effects():
    """No global random numbers, no printing, no synchronising reads, no distributed calls in the pure rooms."""
    banned = {"item", "print", "manual_seed", "rand_like", "randn_like", "cuda", "distributed", "cpu"}
    paths = [path for room in PURE for path in files_of(room) if path.stem not in NOT_PURE]
    paths += [ROOT.parent / f"examples/control/{name}.py" for name in ("body", "objective", "policy", "rollouts")]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "attr", None) or getattr(node, "id", None)
            assert name not in banned, f"{path.name}:{getattr(node, 'lineno', 0)} uses {name}"


def test_a_public_name_is_defined_in_one_module():
    """So that a name says which thing is meant, wherever it is read."""
    homes: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        for name in defined(ast.parse(path.read_text(encoding="utf-8"))):
            homes.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def defined(module: ast.Module) -> set[str]:
    """The public names that a module's top level defines."""
    names = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            names |= {part.id for part in getattr(target, "elts", [target]) if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_the_map_in_contributing_names_every_room_and_each_file_of_the_core():
    text = (ROOT.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = text.partition("```\nfmaml/\n")[2].partition("```")[0].splitlines()
    core = {path.stem for path in files_of("core") if not path.stem.startswith("__")}
    assert [line.split()[0] for line in lines] == list(dict.fromkeys(line.split()[0] for line in lines))
    assert {line.split()[0] for line in lines} == core | {f"{room}/" for room in ALLOWED if room != "core"}


def test_every_file_that_the_documents_name_is_there():
    documents = [ROOT.parent / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")]
    documents += (ROOT.parent / "docs").rglob("*.md")
    for document in documents:
        text = document.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:fmaml|tests|benchmarks|examples|experiments|docs)/[\w/]+(?:\.\w+|/))`", text):
            assert (ROOT.parent / name).exists(), f"{document.name} names {name}"


def test_the_pure_rooms_are_typed_strictly():
    with (ROOT.parent / "pyproject.toml").open("rb") as file:
        strict = tomllib.load(file)["tool"]["pyright"]["strict"]
    assert set(strict) >= {"fmaml/*.py"} | {f"fmaml/{room}" for room in PURE if room != "core"}


ONE_DOOR = {  # the only file that may call this: it bounds every call
    "Image.open(": "data/images/decode.py",
    "pickle.load": "data/files/pickles.py",
    "zipfile.ZipFile(": "data/files/zips.py",
}


@pytest.mark.parametrize(("call", "door"), ONE_DOOR.items())
def test_one_file_reads_each_kind_of_input_that_can_swell(call, door):
    callers = {file.relative_to(ROOT).as_posix() for file in ROOT.rglob("*.py") if call in file.read_text()}
    assert callers <= {door}
