"""Settings are read from source text; they must be what the imported function says."""

import ast
import inspect
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import PathFinder
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Le

from fmaml.config.registry import SETTINGS, TABLE
from fmaml.config.signature import REQUIRED, SUPPLIED_BY_RUN, Setting, dataclass_settings, function_settings
from fmaml.config.source_text import find_function, summary
from fmaml.config.validate import validate_value
from fmaml.config.value_descriptions import describe_values
from fmaml.errors import Error
from fmaml.setting_types import TRAITS, CostsMemory, Count, Decay, FreeOnResume, Natural, Rate, Unit, Ways

TARGETS = [entry.target for names in TABLE.values() for entry in names.values()]
SOURCES = TARGETS + list(SETTINGS.values())  # of settings


def settings_of(source: str | type) -> dict[str, Setting]:
    return function_settings(find_function(source)) if isinstance(source, str) else dataclass_settings(source)


def read(signature: str) -> dict[str, Setting]:
    (function,) = ast.parse(f"def f({signature}): pass").body
    assert isinstance(function, ast.FunctionDef)
    return function_settings(function)


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        ("int", int),
        ("bool", bool),
        ("Count", Count),
        ("Rate | None", Rate | None),
        ("None | Rate", Rate | None),
        ("str | None", str | None),
        ("list[Count]", list[Count]),
        ("tuple[Decay, Decay]", tuple[Decay, Decay]),
        ("tuple[Literal['a', 'b'], ...]", tuple[Literal["a", "b"], ...]),
        ("Annotated[int, 'anything']", Annotated[int, "anything"]),
        ("Rate | Schedule", Rate),
        ("Schedule | Rate", Rate),
        ("Rate | Schedule | None", Rate | None),
        ("Optional[Count]", Count | None),
        ("Union[int, str]", int | str),
        ("Annotated[int, Ge(2), Le(9)]", Annotated[int, Ge(2), Le(9)]),
        ("Literal[-1, 'a']", Literal[-1, "a"]),
        ("None", None),
    ],
)
def test_an_annotation_means_what_python_makes_of_it(annotation, kind):
    assert read(f"*, x: {annotation}") == {"x": Setting(kind)}


IN_CODE_ONLY = ["LossFn", "torch.device", "Metric | None", "Callable[[int], int]", "'Count'", "Optional[Metric]"]


@pytest.mark.parametrize("default", ["", " = None"])
@pytest.mark.parametrize("annotation", IN_CODE_ONLY)
def test_what_neither_a_setting_nor_the_run_supplies_is_an_error(annotation, default):
    with pytest.raises(Error, match=r"f\(\), line 1, parameter x: its annotation .* is not that of a setting; write"):
        read(f"y: int, x: {annotation}{default}")


def test_a_parameter_without_an_annotation_is_an_error():
    with pytest.raises(Error, match=r"f\(\), line 1, parameter x: it has no annotation, .*such as def f\(x: int=5\):$"):
        read("x=5")


def test_the_signature_in_the_message_is_one_that_is_read():
    """Every parameter is corrected at once, and only those that need it."""
    signature = "inputs, x, *, on=True, rate=0.5, name='a', none=None, kind: 'int' = 3, ways: int = 5, made: Made = 1"
    with pytest.raises(Error, match="parameter x: it has no annotation") as raised:
        read(signature)
    corrected = str(raised.value).partition("such as def f(")[2].removesuffix("):")
    found = {name: (setting.type, setting.default) for name, setting in read(corrected).items()}
    assert found == {
        "x": (int, REQUIRED),
        "on": (bool, True),
        "rate": (float, 0.5),
        "name": (str, "a"),
        "none": (int | None, None),
        "kind": (int, 3),
        "ways": (int, 5),
        "made": (int, 1),
    }


@pytest.mark.parametrize(
    "annotation",
    [
        "().__class__",
        "int.__subclasses__()",
        "[x for x in (1,)]",
        "print(1)",
        "(lambda: int)()",
        "f'{int}'",
        "int if True else str",
        "Literal[[1]]",
        "Annotated[int]",
        "5",
        "Ge(1)",
    ],
)
def test_reading_an_annotation_runs_no_code_of_others(annotation):
    with pytest.raises(Error, match=r"parameter x: its annotation .* is not that of a setting"):
        read(f"x: {annotation}")


def test_a_default_that_is_computed_is_an_error():
    with pytest.raises(Error, match=r"parameter steps: its default int\(2\) is computed.*write a literal"):
        read("steps: Count = int(2)")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("fmaml.optim.optimizers:sdg", r"optimizers\.py defines no function sdg at its top level; give one .*as \w+$"),
        ("fmaml.optimm:sgd", r"^there is no module fmaml\.optimm in the current folder or installed; give"),
        ("fmaml.optim.optimizers.sgd:sgd", r"^there is no module fmaml\.optim\.optimizers\.sgd"),
        ("math:sin", "^math has no Python source file.*; give a module that has one$"),
        ("broken:f", r"broken\.py, line 2: .*; correct the file$"),
        ("latin:f", r"latin\.py.*; correct the file$"),
        ("empty:f", r"empty\.py defines no function f at its top level; give one that it defines$"),
    ],
)
def test_a_name_that_leads_to_no_function_is_told(target, said, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe4'\n")
    (tmp_path / "empty.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Error, match=said) as raised:
        find_function(target)
    assert "\n" not in str(raised.value)


def test_every_entry_has_traits_that_there_are():
    assert all(entry.gives | entry.needs <= TRAITS.keys() for names in TABLE.values() for entry in names.values())
    assert all(entry.gives for entry in TABLE["data"].values())


def test_given_parameters_are_left_to_code_although_they_could_be_spelt():
    assert read("*, seed: int, inputs: tuple[int, ...], outputs: int, device: str, rest: int").keys() == {"rest"}


def test_defaults_and_order_come_from_the_signature():
    found = read("a: int, b: float = 1e-3, *, c: bool, d: list[int] = (4, 2), e: Rate | None = None, f: float = -1.0")
    assert list(found) == ["a", "b", "c", "d", "e", "f"]
    assert [s.default for s in found.values()] == [REQUIRED, 1e-3, REQUIRED, (4, 2), None, -1.0]


def test_marks_are_told_from_the_type():
    found = read(
        "root: Annotated[str | None, FreeOnResume] = None, width: Size = 64, ways: WaysOrRange = 5, n: Count = 1"
    )
    assert found == {
        "root": Setting(str | None, None, frozenset({FreeOnResume})),
        "width": Setting(Count, 64, frozenset({CostsMemory})),
        "ways": Setting(Ways | tuple[Ways, Ways], 5, frozenset({CostsMemory})),
        "n": Setting(Count, 1),
    }


def test_fields_of_a_dataclass_are_settings_too():
    @dataclass(frozen=True, kw_only=True)
    class Some:
        steps: Natural
        every: Annotated[Count, FreeOnResume] = 20

    assert dataclass_settings(Some) == {
        "steps": Setting(Natural),
        "every": Setting(Count, 20, frozenset({FreeOnResume})),
    }


@pytest.mark.parametrize("packages", [("someones", "someones/sub"), ("someones",), ()])  # others are mere folders
@pytest.mark.parametrize("place", ["current folder", "installed", "installed by an import hook"])
def test_a_function_is_found_in_the_file_of_its_module_which_is_not_imported(place, packages, tmp_path, monkeypatch):
    (tmp_path / "someones/sub").mkdir(parents=True)
    for name in (f"{package}/__init__.py" for package in packages):
        (tmp_path / name).write_text("raise SystemExit('imported')")
    code = "import absent_module\n\n@absent\ndef f(*, x: int = 3):\n    pass\n"
    (tmp_path / "someones/sub/part.py").write_text(code)
    if place == "current folder":
        monkeypatch.chdir(tmp_path)
    elif place == "installed":
        monkeypatch.syspath_prepend(tmp_path)
    else:

        def found(name: str, path: Any, target: Any = None) -> Any:
            return PathFinder.find_spec(name, path or [str(tmp_path)]) if name.startswith("someones") else None

        monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=found), *sys.meta_path])
    assert function_settings(find_function("someones.sub.part:f")) == {"x": Setting(int, 3)}
    assert not any(name.startswith("someones") for name in sys.modules)


@pytest.mark.parametrize("target", TARGETS)
def test_settings_agree_with_the_imported_function(target):
    module, _, name = target.partition(":")
    real = inspect.signature(getattr(import_module(module), name)).parameters
    found = settings_of(target)
    assert [k for k in real if k not in SUPPLIED_BY_RUN] == list(found)  # none vanished by its annotation
    for key, setting in found.items():
        default = REQUIRED if real[key].default is inspect.Parameter.empty else real[key].default
        assert setting.default == default


@pytest.mark.parametrize("source", SOURCES)
def test_every_default_is_allowed_by_its_own_type(source):
    for setting in settings_of(source).values():
        if setting.default is not REQUIRED:
            kept = validate_value(setting.type, setting.default)
            assert kept == (list(setting.default) if isinstance(setting.default, tuple) else setting.default)


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_of_settings_says_in_one_line_what_it_is(source):
    assert 10 < len(summary(find_function(source) if isinstance(source, str) else source)) < 130


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (int, "a whole number"),
        (Count, "a whole number, 1 or more"),
        (Natural, "a whole number, 0 or more"),
        (Rate, "a number, above 0"),
        (Unit, "a number, 0 or more and at most 1"),
        (Decay, "a number, 0 or more and below 1"),
        (bool, "true or false"),
        (str | None, "text or null"),
        (Rate | None, "a number, above 0, or null"),
        (Literal["vmap", "loop"], "one of vmap, loop"),
        (list[Count], "a list in brackets, each a whole number, 1 or more"),
        (tuple[Decay, Decay], "a list of 2 in brackets, each a number, 0 or more and below 1"),
        (tuple[int, ...], "a list in brackets, each a whole number"),
        (dict[str, int], "a mapping"),
    ],
)
def test_a_type_in_plain_words(kind, said):
    assert describe_values(kind) == said
