"""Settings are read from source text; they must be what the imported function says."""

import ast
import inspect
from importlib import import_module
from typing import Annotated, Literal

import pytest

from fmaml.config.registry import NAMELESS, TABLE
from fmaml.config.signature import GIVEN, REQUIRED, Setting, definition, settings, summary, words
from fmaml.config.validate import valid
from fmaml.ranges import Count, Decay, Natural, Rate, Unit

TARGETS = [target for names in TABLE.values() for target in names.values()] + list(NAMELESS.values())
BY_CODE = {"loss_fn", "apply"}  # parameters that no setting supplies, besides GIVEN


def read(signature: str, **options) -> dict[str, Setting]:
    (function,) = ast.parse(f"def f({signature}): pass").body
    assert isinstance(function, ast.FunctionDef)
    return settings(function, **options)


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
    ],
)
def test_an_annotation_means_what_python_makes_of_it(annotation, kind):
    assert read(f"*, x: {annotation}") == {"x": Setting(kind)}


@pytest.mark.parametrize("annotation", ["LossFn", "torch.device", "Metric | None", "Callable[[int], int]", ""])
def test_what_no_setting_can_spell_is_left_to_code(annotation):
    assert read(f"x: {annotation}, y: int" if annotation else "x, y: int") == {"y": Setting(int)}


def test_given_parameters_are_left_to_code_although_they_could_be_spelt():
    assert read("*, seed: int, inputs: tuple[int, ...], outputs: int, device: str, rest: int").keys() == {"rest"}


def test_defaults_and_order_come_from_the_signature():
    found = read("a: int, b: float = 1e-3, *, c: bool, d: list[int] = (4, 2), e: Rate | None = None, f: float = -1.0")
    assert list(found) == ["a", "b", "c", "d", "e", "f"]
    assert [s.default for s in found.values()] == [REQUIRED, 1e-3, REQUIRED, (4, 2), None, -1.0]


def test_keyword_only_leaves_out_the_rest():
    assert read("a: int, b: int = 1, *, c: int", keyword_only=True).keys() == {"c"}


def test_a_function_is_found_in_the_file_of_its_module(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "part.py").write_text("import absent_module\n\ndef f(*, x: int = 3):\n    pass\n")
    assert settings(definition("package.sub.part:f", tmp_path)) == {"x": Setting(int, 3)}


@pytest.mark.parametrize("target", TARGETS)
def test_settings_agree_with_the_imported_function(target):
    module, _, name = target.partition(":")
    real = inspect.signature(getattr(import_module(module), name)).parameters
    nameless = target in NAMELESS.values()
    real = {k: p for k, p in real.items() if not nameless or p.kind is p.KEYWORD_ONLY}
    found = settings(definition(target), keyword_only=nameless)
    assert [k for k in real if k not in GIVEN | BY_CODE] == list(found)  # none vanished by its annotation
    for key, setting in found.items():
        default = REQUIRED if real[key].default is inspect.Parameter.empty else real[key].default
        assert setting.default == default


@pytest.mark.parametrize("target", TARGETS)
def test_every_default_is_allowed_by_its_own_type(target):
    for setting in settings(definition(target), keyword_only=target in NAMELESS.values()).values():
        if setting.default is not REQUIRED:
            kept = valid(setting.type, setting.default)
            assert kept == (list(setting.default) if isinstance(setting.default, tuple) else setting.default)


@pytest.mark.parametrize("target", TARGETS)
def test_every_function_says_in_one_line_what_it_is(target):
    assert 10 < len(summary(target)) < 130


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
    assert words(kind) == said
