"""What must not stand in the source: anything by which a file that is read could run something."""

import ast
from pathlib import Path

import pytest

import fmaml

ROOT = Path(fmaml.__file__).parent
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "_pickle"}
CALLS = {"torch.load", "torch.save", "torch.hub", "np.load", "numpy.load", "np.save", "pd.read_pickle", "exec", "eval"}
CALLS |= {"os.system", "os.popen", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "__import__"}
METHODS = {"extractall", "extract", "unpack_archive"}
ALLOWED = {
    ("signature.py", "eval"),  # of our own annotations, without builtins
    ("pretrained_networks.py", "torch.load"),  # weights of torchvision come so; weights_only admits tensors alone
    ("pickles.py", "pickle"),  # data sets come so; it admits arrays and containers alone: tests/data/test_pickles.py
}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name.split(".")[0] in MODULES or name in CALLS]
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in CALLS or name.rpartition(".")[2] in METHODS:
                found.append(name)
            found += ["shell=True" for word in node.keywords if word.arg == "shell"]
            found += ["allow_pickle" for word in node.keywords if word.arg == "allow_pickle"]
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_can_run(path):
    found = {(path.name, name) for name in offences(path.read_text(encoding="utf-8"))}
    assert found <= ALLOWED


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from pickle import loads",
        "import marshal as m",
        "import torch\ntorch.load(path, weights_only=True)",
        "from torch import load",
        "exec(text)",
        "eval(text)",
        "import yaml\nyaml.load(text, Loader)",
        "archive.extractall(folder)",
        "subprocess.run(text, shell=True)",
        "np.load(path, allow_pickle=True)",
        "os.system(text)",
    ],
)
def test_the_search_finds(bad):
    assert offences(bad)
