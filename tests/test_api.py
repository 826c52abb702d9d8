"""What scripts may import, and which file may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fmaml

ROOT = Path(fmaml.__file__).parent
CONTRACT = (
    "supervised inner_update trajectory adapt meta_loss meta_grad meta_step init_state evaluate maml mlp conv4 "
    "from_module sgd momentum adam adamw chain clip_by_global_norm cosine query_loss cross_entropy mse accuracy "
    "Params Batch Task Model Algorithm Optimizer MetaState"
).split()
CORE = set("types tree ranges inner outer remat unroll optim losses linear anneal nn algorithms".split())
ALLOWED = {  # each core file may import these core files only
    "types": set(),
    "tree": set(),
    "ranges": set(),
    "inner": {"types", "tree"},
    "outer": {"types", "tree"},
    "optim": {"types", "tree", "ranges"},
    "losses": {"types", "tree"},
    "nn": {"types", "tree", "ranges", "nn"},
    "linear": {"types", "tree"},
    "anneal": {"types", "outer"},
    "remat": {"types", "tree", "inner"},
    "unroll": {"types", "inner", "outer", "remat", "optim", "ranges"},
    "algorithms": {"unroll", "types", "tree", "ranges", "inner", "outer", "optim", "losses", "linear", "anneal"},
}
TORCHLESS = ["cli", "config", "schema", "build", "errors", "ranges", "rules", "catalogue", "__init__"]
TORCHLESS += ["durable", "folder", "lock", "signals"]


def imports(path: Path) -> set[str]:
    """The parts of fmaml that a file imports, by their first name; imports for type checkers and in functions too."""
    depth = len(path.relative_to(ROOT).parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add(path.relative_to(ROOT).parts[0])
    return found


def owner(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("name", CONTRACT)
def test_public_name(name):
    assert getattr(fmaml, name) is not None
    assert name in dir(fmaml)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'mamml'"):
        fmaml.mamml  # noqa: B018


def test_public_list_is_what_type_checkers_read():
    assert set(fmaml.__all__) >= set(CONTRACT)
    for name in fmaml.__all__:
        assert getattr(fmaml, name) is not None


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_core_never_imports_the_edge(path):
    if owner(path) in CORE:
        assert imports(path) <= ALLOWED[owner(path)], "see the dependency direction in CONTRIBUTING.md"


def test_no_algorithm_imports_another():
    for path in (ROOT / "algorithms").glob("*.py"):
        assert "algorithms" not in imports(path)


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
