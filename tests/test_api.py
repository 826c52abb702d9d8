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
CORE = {  # pure: each of these may import those
    "types": set(),
    "tree": set(),
    "ranges": set(),
    "rng": set(),
    "pickling": {"tree"},
    "elementwise": {"tree"},
    "transforms": {"types", "tree", "elementwise", "ranges", "pickling"},
    "optim": {"types", "tree", "elementwise", "ranges", "pickling", "transforms"},
    "torch_optim": {"types", "tree", "pickling", "derivative_order"},
    "inner_rules": {"types", "tree", "transforms"},
    "inner": {"types", "tree", "inner_rules"},
    "batching": {"types", "tree", "ranges"},
    "derivative_order": {"tree"},
    "outer": {"types", "tree", "ranges", "batching", "nn/exact_functions"},
    "distributed": {"outer", "tree"},
    "sharded_optimizer": {"distributed", "tree", "types"},
    "evaluation": {"types", "tree", "ranges", "batching"},
    "losses": {"types", "tree", "pickling"},
    "nn": {"types", "tree", "ranges", "rng", "pickling", "losses", "derivative_order", "nn"},
    "head": {"types", "tree", "losses"},
    "rl": {"types", "tree", "pickling", "losses", "rl"},
    "anneal": {"types", "pickling", "outer"},
    "remat": {"types", "tree", "inner", "inner_rules", "derivative_order"},
    "unroll": {"types", "inner", "inner_rules", "outer", "remat", "optim", "transforms", "ranges"},
    "algorithms": {
        *("types", "tree", "ranges", "inner", "inner_rules", "outer", "evaluation", "optim", "transforms", "losses"),
        *("head", "anneal", "unroll", "derivative_order", "pickling"),
    },
}
EDGE = {  # has state: each of these rooms may import itself and those
    "__init__": set(),
    "errors": set(),
    "extras": {"errors"},
    "pretrained": {"types", "tree", "ranges", "pickling", "losses", "nn", "extras"},
    "atomic_files": set(),
    "regular_files": set(),
    "data": {
        "types",
        "tree",
        "ranges",
        "rng",
        "pickling",
        "losses",
        "rl",
        "errors",
        "atomic_files",
        "regular_files",
        "extras",
    },
    "config": {"ranges", "errors", "regular_files", "data/dataset_facts", "nn/constants"},
    "html": set(),
    "run": {
        *(*CORE, "__init__", "errors", "atomic_files", "regular_files", "arguments", "data", "config", "pretrained"),
        *("html", "extras"),
    }
    - {"algorithms", "nn"},
    "deploy": {*CORE, "errors", "extras", "atomic_files", "regular_files", "arguments", "data", "config", "run"}
    - {"algorithms", "remat", "unroll"},
    "recipes": {"data", "run", "extras"},
    "sweep": {"errors", "atomic_files", "regular_files", "config", "run"},
    "arguments": {"errors"},
    "run_commands": {"errors", "arguments", "config", "run", "sweep"},
    "cli": {"__init__", "errors", "arguments", "run_commands", "config", "data", "run", "deploy"},
    "__main__": {"cli"},
}
ALLOWED = CORE | EDGE
TORCHLESS = [
    "__init__",
    "arguments",
    "cli",
    "run_commands",
    "errors",
    "ranges",
    "atomic_files",
    "config.catalogue",
    "config.load",
]
TORCHLESS += [
    "data.dataset_facts",
    "data.images.scan",
    "data.files.cache_files",
    "deploy.commands",
    "run.store.model_card",
    "run.signals",
]
TORCHLESS += ["run.store.run_folder", "run.store.run_lock", "run.store.model_shelf", "run.store.held_folder"]
TORCHLESS += ["deploy.demo.command"]
TORCHLESS += ["sweep.command", "sweep.child"]
TORCHLESS += [
    "run.limits",
    "run.past_commands",
    "run.run_list",
    "run.compare",
    "run.compare_page",
    "run.report_sections",
]


def imports(path: Path) -> set[str]:
    """The rooms and files of fmaml that a file imports; imports for type checkers and in functions too."""
    here = path.relative_to(ROOT).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level]
            module = (*base, *(node.module.split(".") if node.module else ()))
            found |= (
                {"/".join(module)}
                if module
                else {alias.name.replace("__version__", "__init__") for alias in node.names}
            )
    return found


def owner(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


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


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_in_one_direction(path):
    room = owner(path)
    allowed = ALLOWED[room] | ({room} if room in EDGE else set())
    wrong = {name for name in imports(path) if name.split("/")[0] not in allowed and name not in allowed}
    assert not wrong, "see the dependency direction in CONTRIBUTING.md"


def test_every_room_has_its_direction():
    rooms = {owner(path) for path in ROOT.rglob("*.py")}
    assert rooms == set(ALLOWED)


def test_no_algorithm_imports_another():
    for path in (ROOT / "algorithms").glob("*.py"):
        assert not any(name.startswith("algorithms") for name in imports(path))


@pytest.mark.parametrize("name", TORCHLESS)
def test_imports_no_torch(name):
    module = "fmaml" if name == "__init__" else f"fmaml.{name}"
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_core_has_no_side_effects():
    """No global random numbers, no printing, no synchronising reads, no distributed calls in the core."""
    banned = {"item", "print", "manual_seed", "rand_like", "randn_like", "cuda", "distributed", "cpu"}
    for path in (p for p in ROOT.rglob("*.py") if owner(p) in CORE):
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


def test_the_map_in_contributing_names_every_file_and_no_other():
    """But for the algorithms and the sources, whose rooms say that each is a file."""
    text = (ROOT.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn, rooms = set(), {0: ROOT}
    for line in text.partition("```\nfmaml/\n")[2].partition("```")[0].splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2
        path = rooms[depth - 1] / name.rstrip("/")
        rooms |= {depth: path} if name.endswith("/") else {}
        drawn |= {path} if name.endswith("/") else {path.with_suffix(".py")}
    files = {path for path in ROOT.rglob("*.py") if not path.stem.startswith("__")}
    files = {path for path in files if path.parent not in (ROOT / "algorithms", ROOT / "data/sources")}
    assert drawn == files | {path.parent for path in ROOT.rglob("*.py")} - {ROOT}


def test_every_file_that_the_documents_name_is_there():
    documents = [ROOT.parent / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")]
    documents += (ROOT.parent / "docs").rglob("*.md")
    for document in documents:
        text = document.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:fmaml|tests|benchmarks|experiments|docs)/[\w/]+(?:\.\w+|/))`", text):
            own = name in ("fmaml/algorithms/alpha_maml.py", "fmaml/data/sources/lines.py")  # of docs/extend.md
            assert own or (ROOT.parent / name).exists(), f"{document.name} names {name}"


def test_the_core_is_what_is_typed_strictly():
    with (ROOT.parent / "pyproject.toml").open("rb") as file:
        strict = tomllib.load(file)["tool"]["pyright"]["strict"]
    assert {Path(name).stem for name in strict} == set(CORE)
