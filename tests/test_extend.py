"""The two files of `examples/extend/` in a folder outside the checkout, without an edit of the package."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import children
import pytest
from safetensors.torch import load_file

from fmaml.cli.main import main

TOP = Path(__file__).parent.parent
FILES = {name: TOP / f"examples/extend/{name}.py" for name in ("alpha_maml", "lines")}
SMALL = ["train.meta_steps=3", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=2", "--device", "cpu"]
OWN = ["data.name=lines:lines", "algorithm.name=alpha_maml:alpha_maml"]
REFUSED = "code outside fmaml; if you trust it, give --trust, or "
COMMANDS = """
import json, sys
from fmaml.cli.main import main
for words in json.loads(sys.argv[1]):
    print(f"=> {main(words)}", flush=True)
"""
AS_IF_OURS = """
import sys, pytest
from fmaml.config.registry import TABLE, find_entry
sys.path.insert(0, "")
section, name, *words = sys.argv[1:]
TABLE[section][name.rpartition(":")[2]] = find_entry(section, name)
sys.exit(pytest.main(words))
"""


def called(folder: Path, *words: str, code: int = 0, path: str | None = None) -> str:
    """What a Python prints that, as the console script, does not look for modules in the current folder by itself."""
    environment = os.environ if path is None else {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-P", *words]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def fmaml(folder: Path, *commands: list[str], path: str | None = None) -> tuple[list[int], str]:
    """The exit codes of commands, run in one process, and what they print."""
    if path is None:
        ran = children.ended(partial(run_each, commands), cwd=folder)
        said = ran.stdout + ran.stderr
    else:
        said = called(folder, "-c", COMMANDS, json.dumps(commands), path=path)
    return [int(code) for code in re.findall(r"^=> (\d+)$", said, re.MULTILINE)], said


def run_each(commands: tuple[list[str], ...]) -> None:
    """In a child, which does not look for modules in the current folder by itself either."""
    sys.path[:] = [path for path in sys.path if path not in ("", ".")]
    for words in commands:
        print(f"=> {main(words)}", flush=True)


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    for file in FILES.values():
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def trained(outside) -> Path:
    """A run of both, in the folder of the files."""
    run = ["run", "sinusoid", *OWN, *SMALL, "train.baseline=false", "--out", "out"]
    assert fmaml(outside, run)[0] == [0]
    return outside / "out"


def test_the_page_shows_the_files_which_are_short():
    blocks = re.findall(r"```py\n(.*?)```", (TOP / "docs/extend.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks == [file.read_text(encoding="utf-8") for file in FILES.values()]
    assert all(len(block.splitlines()) <= 40 for block in blocks)


def test_the_classes_of_the_page_are_trained_on(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", (TOP / "docs/extend.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "blobs.py").write_text(block, encoding="utf-8")
    words = ["run", "omniglot", "data.name=blobs:blobs", "data.ways=3", "model.width=4", *SMALL]
    assert fmaml(tmp_path, words)[0] == [0]


def test_they_are_shown_with_their_own_settings_and_mistakes(outside):
    _, shown = fmaml(outside, ["show", "sinusoid", *OWN])
    assert "  name: lines:lines\n  shots: 10\n" in shown
    assert re.search(r"  name: alpha_maml:alpha_maml\n(  .*\n)*  only: \['\*'\]", shown)
    mistakes = [["data.shots=0"], ["data.shorts=3"], ["algorithm={name: protonet}", "train.baseline=false"]]
    codes, said = fmaml(outside, *(["show", "sinusoid", *OWN, *mistake] for mistake in mistakes))
    assert codes == [2, 2, 2]
    assert "data.shots = 0: must be a whole number, 1 or more" in said
    assert "data.shorts = 3: unknown key; did you mean data.shots?" in said
    assert "it needs class numbers as targets, which data.name = lines:lines does not have; give maml" in said


def test_they_are_trained_and_the_rate_is_learnt(trained):
    assert abs(float(load_file(trained / "last.safetensors")["log_rate"]) - math.log(0.01)) > 1e-5
    results = json.loads((trained / "results.json").read_text(encoding="utf-8"))
    assert results["metric"] == "squared error"
    assert results["task"] == "10-shot lines"
    assert "10-shot lines" in (trained / "report.html").read_text(encoding="utf-8")


def test_a_run_is_resumed_where_the_files_are(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "out")
    command = ["resume", "out", "train.meta_steps=4"]
    codes, elsewhere = fmaml(tmp_path, command)
    assert codes == [2]
    assert re.search(
        r"out/config\.yaml: data\.name = \"lines:lines\": there is no module lines in the current folder or installed",
        elsewhere,
    )
    for file in FILES.values():
        shutil.copy(file, tmp_path)
    codes, said = fmaml(tmp_path, command)
    assert codes == [0]
    assert "after step 3" in said
    assert '"step": 4' in (tmp_path / "out/metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]


def test_a_model_file_is_used_only_with_trust(trained):
    """Refused by the name of its function, by each command and in a script; and then tested, adapted and asked."""
    more = ["eval.tasks=2", "data.shots=3"]
    codes, said = fmaml(
        trained.parent,
        ["test", "out/model.safetensors", *more],
        ["test", "out", *more],
        ["export", "out", "--to", "torch", "--out", "x.pt2"],
        ["demo", "--model", "out", "--no-browser", "--port", "0"],
        ["test", "out", "--trust", *more],
    )
    assert codes == [2, 2, 2, 2, 0]
    assert said.count(f"out/model.safetensors: its algorithm is alpha_maml:alpha_maml, {REFUSED}trust=True") == 4
    assert re.search("3-shot lines, 10 queries, fresh lines", " ".join(said.split()))
    ran = children.ended(in_a_script, cwd=trained.parent)
    assert ran.returncode == 0, ran.stderr
    refused, shape = ran.stdout.splitlines()
    assert f"its algorithm is alpha_maml:alpha_maml, {REFUSED}trust=True" in refused
    assert shape == "[5, 1]"


def in_a_script() -> None:
    """In a child: load the model without trust and with it."""
    import torch

    from fmaml import load

    sys.path.insert(0, "")
    try:
        load("out")
    except Exception as error:
        print(error)
    assert "alpha_maml" not in sys.modules
    x = torch.rand(5, 1)
    print(list(load("out", trust=True).adapt(x, 2 * x).outputs(x).shape))


def test_a_model_of_ones_own_data_alone_needs_trust_for_the_data_alone(outside):
    own_data = ["run", "sinusoid", OWN[0], *SMALL, "train.baseline=false", "--out", "ours"]
    tests = [[], ["data.name=sinusoid"], ["data.name=lines:lines"]]  # named by the user, it is the user's own word
    codes, said = fmaml(outside, own_data, *(["test", "ours", "eval.tasks=2", *words] for words in tests))
    assert codes == [0, 2, 0, 0]
    assert f"ours: its data is lines:lines, {REFUSED}" in said


def test_pictures_are_named_by_a_trusted_model(outside):
    support, new = (str(TOP / "docs/letters" / name) for name in ("support", "new"))
    words = ["data.name=glyphs", "model.width=8", OWN[1], "train.baseline=false"]
    codes, said = fmaml(
        outside,
        ["run", "omniglot", *words, *SMALL, "--out", "drawn"],
        ["adapt", "drawn", "--trust", "--support", support, "--out", "mine.safetensors"],
        ["predict", "mine.safetensors", new],
        ["predict", "mine.safetensors", "--trust", "--csv", new],
        ["export", "mine.safetensors", "--trust", "--to", "torch", "--out", "mine.pt2"],
    )
    assert codes == [0, 0, 2, 0, 0]
    assert f"mine.safetensors: its algorithm is alpha_maml:alpha_maml, {REFUSED}" in said
    assert said.count("docs/letters/new/") == 15
    assert (outside / "mine.pt2").exists()


@pytest.mark.parametrize(
    ("section", "target", "tests"),
    [
        ("algorithm", "alpha_maml:alpha_maml", "tests/algorithms/test_all_algorithms.py"),
        ("data", "lines:lines", "tests/data/test_all_sources.py"),
        ("data", "examples.control.navigation:navigation", "tests/data/test_all_sources.py"),
        ("data", "examples.control.cheetah:cheetah", "tests/data/test_all_sources.py"),
    ],
)
def test_they_are_held_to_what_ours_are_held_to(section, target, tests, outside):
    """The tests of every algorithm and of every source, with this one in the table."""
    options = ["-p", "no:cacheprovider", "-c", str(TOP / "setup.cfg"), "--rootdir", str(TOP)]
    module, _, name = target.partition(":")
    words = [section, target, *options, str(TOP / tests), "-k", f"{name} and not compiles"]
    assert int(re.findall(r"(\d+) passed", called(TOP if "." in module else outside, "-c", AS_IF_OURS, *words))[0]) >= 3


def test_an_installed_package_brings_names(outside, tmp_path):
    """Listed beside ours, and read without being imported; one that is wrong is told, and a name of ours stays ours."""
    about = tmp_path / "site/extension-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: extension\nVersion: 1.0\n")
    algorithms = "alpha = alpha_maml:alpha_maml\nbroken = alpha_maml:absent\nmaml = lines:lines\n"
    (about / "entry_points.txt").write_text(f"[fmaml.data]\nlines = lines:lines\n[fmaml.algorithm]\n{algorithms}")
    for file in FILES.values():
        (tmp_path / "site" / file.name).write_text(file.read_text(encoding="utf-8") + "\nprint('IMPORTED')\n")
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    names = ["sinusoid", "data.name=lines", "algorithm.name=alpha"]

    codes, said = fmaml(
        tmp_path, ["ls"], ["ls", "algorithms"], ["show", *names], ["show", *names, "algorithm.name=alpah"], path=path
    )
    assert codes == [0, 0, 0, 2]
    assert "IMPORTED" not in said
    assert re.search(r"\n  lines +Lines y = a x \+ b with a and b in \[-1, 1\]", said)
    assert re.search(r"\n  alpha +MAML with one learnt inner rate", said)
    assert re.search(r"\n  broken +cannot be used: .*alpha_maml\.py defines no function absent", said)
    assert re.search(r"algorithm\.name: alpha\n(.*\n)*?  only +a list in brackets, each text", said)
    assert said.count("algorithm.name: maml\n") == 1
    assert re.search(r"must be one of maml, .*, scratch, alpha, broken, or package\.module:function of your own", said)

    codes, said = fmaml(
        tmp_path,
        ["run", *names, *SMALL, "train.baseline=false", "--out", "out"],
        ["test", "out", "--trust", "eval.tasks=2"],
        path=path,
    )
    assert codes == [0, 0]
    assert said.count("IMPORTED") == 2
    codes, said = fmaml(tmp_path, ["test", "out"], path=path)
    assert codes == [2]
    assert f"its algorithm is alpha_maml:alpha_maml, {REFUSED}" in said
    assert "IMPORTED" not in said
