"""Functions outside fmaml as the name of a section: read without being imported, and told in one line what is wrong."""

import re
import sys
from itertools import count

import pytest

from fmaml.cli.main import main
from fmaml.config.config_diff import changed_settings
from fmaml.config.load import load_config
from fmaml.config.quick import load_quick
from fmaml.config.registry import IMAGES, SIGNALS, find_entry
from fmaml.errors import Error

HEAD = """\
import torch, fmaml
from typing import *
from annotated_types import Ge, Le
from fmaml.data import Metric, Source
from fmaml.setting_types import *
from fmaml.setting_types import gives, needs
"""
POINTS = """
@gives("numbers", "single_targets")
def points(seed, device, shots: Count = 3, {settings}):
    def sample(split, step, tasks):
        x = torch.ones(len(tasks), shots, 1)
        return fmaml.Task(fmaml.Batch(x, x), fmaml.Batch(x, x))
    about = {about}
    return Source(sample, (1,), 1, about, criterion=fmaml.mse, metric=Metric("MSE", fmaml.mse, ".3f", False))
"""
NUMBERS = count()
ABOUT = '{"task": "points", "protocol": "points"}'
SMALL = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "train.baseline=false", "eval.tasks=2"]
SMALL += ["eval.inductive=false", "--device", "cpu"]
UNANNOTATED = r"f\(\), line \d+, parameter x: it has no annotation, so no setting can be checked; write it"
MISFIT = r"f\(\), line \d+, parameter x: its annotation .* is not that of a setting; write it"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module into the current folder, of a name that no other test has."""
    monkeypatch.chdir(tmp_path)
    name = f"own_code_{next(NUMBERS)}"

    def write(code: str, head: str = HEAD) -> str:
        (tmp_path / f"{name}.py").write_text(head + code)
        return name

    return write


@pytest.mark.parametrize(
    ("section", "code", "said"),
    [
        (
            "data",
            "def f(seed): ...",
            r"declares no traits of its tasks; write @gives\(\.\.\.\) of fmaml\.setting_types above",
        ),
        ("data", "@gives('numbres')\ndef f(seed): ...", r"f\(\), line 8: @gives takes traits .*; 'numbres' is none"),
        (
            "data",
            "@gives(WORDS)\ndef f(seed): ...",
            r"f\(\), line 8: @gives takes traits of the tasks, as text: numbers",
        ),
        (
            "algorithm",
            "@needs(['classes'])\ndef f(loss_fn): ...",
            r"@needs takes traits .*; \['classes'\] is none of them",
        ),
        ("model", "def f(inputs, x): ...", UNANNOTATED),
        ("model", "def f(inputs, x=3): ...", UNANNOTATED),
        ("model", "def f(inputs, x: torch.dtype = None): ...", MISFIT),
        ("model", "def f(inputs, x: 'int' = 3): ...", MISFIT),
        ("optimizer", "def f(x: float = 1 / 3): ...", r"parameter x: its default 1 / 3 is computed.*; write a literal"),
        ("optimizer", "def f(:", r"\.py, line 8: .*; correct the file"),
        ("optimizer", "class f: ...", r"\.py defines no function f at its top level; give one that it defines"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_it(section, code, said, module):
    name = module(code, head=f"{HEAD}raise SystemExit('imported')\n")
    with pytest.raises(Error) as raised:
        load_config("sinusoid", [f"{section}={{name: '{name}:f'}}"])
    line = next(line for line in str(raised.value).splitlines() if f"{section}.name" in line)
    assert re.match(rf"command line: {section}\.name = \"{name}:f\": .*{said}", line)
    assert name not in sys.modules


@pytest.mark.parametrize("name", ["nowhere:", ":f", "a b:c", "no/where:f", "nowhere:f:g", "nowhere.f"])
def test_a_name_that_is_neither_ours_nor_a_function_says_how_one_is_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Error, match=r"must be one of maml, .*, or package\.module:function of your own$"):
        load_config("sinusoid", [f'algorithm.name="{name}"'])


def test_settings_are_those_of_the_signature(module):
    name = module(
        "def f(*, lr: Rate, a: Optional[int] = None, b: Literal['x', 'y'] = 'x', c: Annotated[int, Le(9)] = 1): 0"
    )
    given = {"name": f"{name}:f", "lr": 0.1, "a": None, "b": "x", "c": 1}
    assert load_config("sinusoid", [f"optimizer={{name: '{name}:f', lr: 0.1}}"])["optimizer"] == given
    for wrong, said in (("c=10", "must be a whole number, at most 9"), ("b=z", "must be one of x, y")):
        with pytest.raises(Error, match=f"optimizer.{wrong[0]} = .*: {said}"):
            load_config("sinusoid", [f"optimizer={{name: '{name}:f', lr: 0.1}}", f"optimizer.{wrong}"])


def test_limits_that_fit_no_value_of_the_type_are_told(module):
    name = module("def f(*, x: Annotated[str, Ge(1)] = 'a'): ...")
    with pytest.raises(Error, match=r"optimizer\.x: the limits of its annotation do not fit its type"):
        load_config("sinusoid", [f"optimizer={{name: '{name}:f'}}"])


@pytest.mark.parametrize(
    ("section", "code", "said"),
    [
        (
            "optimizer",
            "\nx = undefined\ndef f(): ...",
            r"NameError: name 'undefined' is not defined \(.*\.py, line 8\)",
        ),
        ("optimizer", "import no_such_thing\ndef f(): ...", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("optimizer", "raise SystemExit('I end')\ndef f(): ...", r"SystemExit: I end \(.*\.py, line 7\)"),
        ("optimizer", "def f(): ...\ndel f", "AttributeError: module '.*' has no attribute 'f'"),
        (
            "optimizer",
            "def f():\n    raise KeyError('lost')",
            r"KeyError: 'lost' \(.*\.py, line 8\); correct it, FMAML_DEBUG",
        ),
        ("optimizer", "def f(x: int = 3):\n    raise ValueError(f'x = {x}: too few')", "x = 3: too few"),
        ("optimizer", "def f(): ...", r"it returned NoneType, and must return fmaml\.Optimizer"),
        (
            "algorithm",
            "def f(loss_fn): return fmaml.sgd(1.0)",
            r"it returned Optimizer, and must return fmaml\.Algorithm",
        ),
        ("model", "def f(inputs): return torch.nn.Linear(1, 1)", r"it returned Linear, and must return fmaml\.Model"),
        ("data", "@gives('numbers')\ndef f(seed): return 5", r"it returned int, and must return fmaml\.data\.Source"),
        (
            "data",
            POINTS.format(settings="", about="{}").replace("def points", "def f"),
            "Source.about lacks task and protocol",
        ),
        (
            "data",
            POINTS.format(settings="", about=f"{ABOUT}; fn = lambda apply: None")
            .replace("def points", "def f")
            .replace('".3f", False)', '".3f", False), loss=fn'),
            r'Source.loss and "own_loss" in @gives\(...\) belong together; add the missing one',
        ),
        (
            "data",
            POINTS.format(settings="", about=ABOUT)
            .replace("def points", "def f")
            .replace('"numbers"', '"numbers", "own_loss"'),
            r'Source.loss and "own_loss" in @gives\(...\) belong together; add the missing one',
        ),
    ],
)
def test_what_goes_wrong_when_it_is_built_is_one_line(section, code, said, module, capsys):
    name = module(code)
    words = [f"{section}={{name: '{name}:f'}}", "train.baseline=false", "--dry-run", "--device", "cpu"]
    assert main(["run", "sinusoid", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(rf"fmaml: {section}\.name = {name}:f: .*{said}", line)


def test_a_model_and_an_optimizer_of_ones_own_are_trained(module, tmp_path, capsys):
    code = (
        "def net(inputs, outputs, width: Size = 4): return fmaml.mlp(inputs=inputs, outputs=outputs, hidden=[width])\n"
    )
    name = module(code + "def descent(*, lr: Rate): return fmaml.sgd(lr)\n")
    own = [f"model={{name: '{name}:net', width: 6}}", f"optimizer={{name: '{name}:descent', lr: 0.1}}"]
    assert main(["run", "sinusoid", *own, *SMALL, "--out", "out"]) == 0
    capsys.readouterr()
    assert main(["test", "out", "eval.tasks=2"]) == 2
    assert f"out/model.safetensors: its model is {name}:net, code outside fmaml" in capsys.readouterr().err
    assert main(["test", "out", "eval.tasks=2", "--trust"]) == 0
    assert main(["run", "sinusoid", own[1], *SMALL, "--out", "ours"]) == 0
    assert main(["test", "ours", "eval.tasks=2"]) == 2
    assert f"ours: its optimizer is {name}:descent, code outside fmaml" in capsys.readouterr().err


def test_traits_are_compared_as_ours_are(module):
    name = module(
        "@fmaml.setting_types.needs('images', 'classes')\ndef f(loss_fn): ...\n@gives('images')\ndef g(): ..."
    )
    with pytest.raises(Error, match=r"it needs class numbers as targets and images, which data\.name = sinusoid"):
        load_config("sinusoid", [f"algorithm={{name: '{name}:f'}}", "train.baseline=false"])
    load_config("omniglot", [f"algorithm={{name: '{name}:f'}}", "train.baseline=false"])
    with pytest.raises(Error, match=rf"it needs class numbers as targets, which data\.name = {name}:g does not have"):
        load_config("omniglot", [f"data={{name: '{name}:g'}}", "algorithm={name: protonet}"])
    assert find_entry("data", f"{name}:g").gives == {"images", "numbers"}


def test_traits_imply_what_they_do_for_ours(module):
    name = module("@gives('images', 'classes')\ndef f(): ...\n@gives('signals', 'classes')\ndef g(): ...")
    assert find_entry("data", f"{name}:f").gives == IMAGES
    assert find_entry("data", f"{name}:g").gives == SIGNALS


def test_settings_that_are_called_as_ours_and_mean_something_else_break_no_rule(module):
    """The rules about several settings hold for ours; --quick takes a tenth of the meta-steps, as without images."""
    settings = (
        "ways: str = 'a', queries: list[str] = ('b',), fractions: str = 'c', symbols: str = 'd', order: str = 'e'"
    )
    code = POINTS.format(settings=settings, about=ABOUT).replace('"numbers"', '"images", "classes"')
    name = module(code + "def net(inputs, outputs, norm: str = 'group', heads: float = 2.5): ...\n")
    own = [f"data={{name: '{name}:points'}}", f"model={{name: '{name}:net'}}"]
    assert load_config("omniglot", own)["data"]["ways"] == "a"
    config, stand_in = load_quick("omniglot", own, lambda line: None)
    assert config["train"]["meta_steps"] == load_config("omniglot")["train"]["meta_steps"] / 10
    assert stand_in is None


def test_a_run_whose_code_is_gone_is_still_compared(module, tmp_path):
    name = module(POINTS.format(settings="", about=ABOUT))
    config = load_config("sinusoid", [f"data={{name: '{name}:points', shots: 7}}"])
    (tmp_path / f"{name}.py").unlink()
    _, changed = changed_settings(config)
    assert ("data.shots", 7) in [(setting.key, setting.value) for setting in changed]
