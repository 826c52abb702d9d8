"""Every key by wrong and right values, and what a slip is told."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Le, MaxLen
from example import EXAMPLE, complaints

from fmaml.config.load import load_config
from fmaml.config.registry import SETTINGS, TABLE
from fmaml.config.signature import REQUIRED
from fmaml.config.validate import TOP_LEVEL, section_settings
from fmaml.config.value_descriptions import describe_values
from fmaml.setting_types import Count, Decay, Natural, NonNegative, OneOrTwo, Rate, Unit, Ways


def put(config: dict[str, Any], key: str) -> Any:
    section, _, rest = key.partition(".")
    return config[section][rest] if rest else config[section]


# Every key by wrong and right values


def or_none(kind: Any) -> Any:
    return kind | None


WHOLE = ["null", "abc", "true", "[1]", "{a: 1}", "1.5", "1e3", ".nan", ".inf", "'3'"]
NUMBER = ["null", "abc", "false", "[1]", "{a: 1}", ".nan", "-.inf", "1e400", "'0.1'"]
WORD = ["null", "abc", "1", "true", "[1]", "{a: 1}"]
LIST = ["null", "abc", "1", "true", "{a: 1}", "[abc]", "[true]", "[[1]]", "[null]"]
WIDTHS, DEPTH = Annotated[Sequence[Count], MaxLen(1000)], Annotated[int, Ge(1), Le(1000)]
WAYS, SHOTS = Ways | tuple[Ways, Ways], Count | tuple[Count, Count]  # a number, or its least and greatest
AUGMENT = Sequence[Literal["flip", "shift", "colour"]]
SHIFT = Sequence[Literal["shift"]]
LOG_TO = Sequence[Literal["csv", "tensorboard", "wandb"]]
WRONG: dict[Any, list[str]] = {
    Natural: [*WHOLE, "-1"],
    TOP_LEVEL["seed"].type: [*WHOLE, "-1", "4294967296"],
    Count: [*WHOLE, "0", "-1"],
    Ways: [*WHOLE, "1", "0", "-5"],
    OneOrTwo: [*WHOLE, "0", "3"],
    Rate: [*NUMBER, "0", "-1"],
    NonNegative: [*NUMBER, "-1e-9"],
    Decay: [*NUMBER, "1", "-0.1"],
    Unit: [*NUMBER, "1.01", "-0.1"],
    bool: ["null", "abc", "1", "0", "yes", "on", "'true'", "[true]"],
    bool | Literal["auto", "graph"]: ["null", "abc", "1", "0", "yes", "on", "'true'", "[true]", "[auto]"],
    bool | Literal["joint", "fine_tune", "start"]: ["null", "abc", "1", "0", "yes", "'true'", "[true]", "fine-tune"],
    TOP_LEVEL["name"].type: ["null", "1", "true", "a/b", "../x", ".x", "''", "a b", "[a]", "x" * 65],
    str | None: ["1", "true", "1e-3", "[a]", "{a: b}"],
    or_none(Count): [wrong for wrong in WHOLE if wrong != "null"] + ["0"],
    or_none(Ways): [wrong for wrong in WHOLE if wrong != "null"] + ["1"],
    or_none(Rate): [wrong for wrong in NUMBER if wrong != "null"] + ["0"],
    or_none(Decay): [wrong for wrong in NUMBER if wrong != "null"] + ["1"],
    str: ["null", "1", "true", "1e-3", "[a]", "{a: b}"],
    Sequence[str]: ["null", "abc", "1", "true", "{a: 1}", "[1]", "[true]", "[[a]]", "[null]"],
    WIDTHS: [*LIST, "[0]", "[1.5]", "[40, -1]", f"[{', '.join(['1'] * 1001)}]"],
    DEPTH: [*WHOLE, "0", "-1", "1001", "1000000"],
    tuple[Decay, Decay]: [*LIST, "[0.9]", "[0.9, 0.9, 0.9]", "[0.9, 1]"],
    tuple[Unit, Unit, Unit]: [*LIST, "[0.5, 0.5]", "[2, 0, 0]", "[1, 1, -1]"],
    WAYS: [*(wrong for wrong in WHOLE if wrong != "[1]"), "1", "[2]", "[1, 3]", "[2, 3, 4]", "[2, 3.5]", "[]"],
    SHOTS: [*(wrong for wrong in WHOLE if wrong != "[1]"), "0", "[1]", "[0, 3]", "[2, 3, 4]", "[2, abc]", "[]"],
    AUGMENT: ["null", "flip", "1", "true", "{a: 1}", "[1]", "[FLIP]", "[flip, turn]", "[[flip]]", "[null]"],
    SHIFT: ["null", "shift", "1", "true", "{a: 1}", "[1]", "[SHIFT]", "[shift, flip]", "[[shift]]", "[null]"],
    LOG_TO: ["null", "csv", "1", "true", "{a: 1}", "[1]", "[CSV]", "[csv, excel]", "[[csv]]", "[null]"],
    dict: ["null", "abc", "1", "true", "[1]"],
    Literal[1, 3]: ["null", "2", "rgb", "1.5", "[1]"],
}
RIGHT: dict[Any, dict[str, Any]] = {
    Natural: {"0": 0, "3": 3},
    Count: {"1": 1, "999999999999": 999999999999},
    Ways: {"2": 2},
    OneOrTwo: {"1": 1, "2": 2},
    Rate: {"1e-3": 0.001, "1": 1.0},
    NonNegative: {"0": 0.0, "5E-4": 0.0005},
    Decay: {"0": 0.0, ".9": 0.9},
    Unit: {"0": 0.0, "1": 1.0},
    bool: {"true": True, "false": False},
    bool | Literal["auto", "graph"]: {"true": True, "false": False, "auto": "auto", "graph": "graph"},
    bool | Literal["joint", "fine_tune", "start"]: {"true": True, "false": False, "fine_tune": "fine_tune"},
    str | None: {"null": None, "": None, "/some/where": "/some/where"},
    or_none(Count): {"null": None, "4": 4},
    or_none(Ways): {"null": None, "20": 20},
    or_none(Rate): {"null": None, "10": 10.0},
    or_none(Decay): {"null": None, "0.99": 0.99},
    Sequence[str]: {"[]": [], "[head.*]": ["head.*"], "['*.bias', conv1.weight]": ["*.bias", "conv1.weight"]},
    WIDTHS: {"[]": [], "[40, 40]": [40, 40]},
    DEPTH: {"1": 1, "1000": 1000},
    tuple[Decay, Decay]: {"[0, 0.99]": [0.0, 0.99]},
    tuple[Unit, Unit, Unit]: {"[1, 0, 0]": [1.0, 0.0, 0.0], "[0.5, 0.25, 0.25]": [0.5, 0.25, 0.25]},
    WAYS: {"2": 2, "[2, 2]": [2, 2], "[3, 8]": [3, 8]},
    SHOTS: {"1": 1, "999999999999": 999999999999, "[1, 5]": [1, 5]},
    str: {"/some/where": "/some/where", "'1'": "1"},
    AUGMENT: {"[]": [], "[flip]": ["flip"], "[shift, flip]": ["shift", "flip"], "[colour]": ["colour"]},
    SHIFT: {"[]": [], "[shift]": ["shift"]},
    LOG_TO: {"[]": [], "[csv]": ["csv"], "[wandb, tensorboard]": ["wandb", "tensorboard"]},
    dict: {"{}": {}, "{width: 8}": {"width": 8}},
}


def wrong_values(kind: Any) -> list[str]:
    if get_origin(kind) is Literal and kind not in WRONG:
        return WORD
    return LIST if kind not in WRONG and get_origin(kind) in (list, tuple) else WRONG[kind]


def right_values(kind: Any) -> dict[str, Any]:
    if get_origin(kind) is Literal:
        return {str(word): word for word in get_args(kind)}
    if get_origin(kind) is tuple and kind not in RIGHT:
        return {"[]": [], **{f"[{word}]": [word] for word in get_args(get_args(kind)[0])}}
    return RIGHT[kind]


def needed_settings(section: str, name: str) -> list[str]:
    """Settings without a default that `EXAMPLE` lacks."""
    found = section_settings(section, {"name": name}) or {}
    required = [key for key, setting in found.items() if setting.default is REQUIRED]
    paths = [f"{key}=/some/where" for key in required if found[key].type is str]
    return [*paths, *(f"{key}=1" for key in required if key in ("lr", "chunks"))]


CONTROL = "examples.control"  # functions outside the package
OUTSIDE = {
    "data": [f"{CONTROL}.navigation:navigation", f"{CONTROL}.cheetah:cheetah"],
    "model": [f"{CONTROL}.policy:policy"],
}
EVERY_KEY = [
    pytest.param(
        [f"{section}.name={name}", *(f"{section}.{k}" for k in needed)],
        f"{section}.{key}",
        kind,
        id=f"{name}.{key}",
    )
    for section, names in TABLE.items()
    for name in [*names, *OUTSIDE.get(section, ())]
    for needed in [needed_settings(section, name)]
    for key, (kind, _, _) in (section_settings(section, {"name": name}) or {}).items()
] + [
    pytest.param([], f"{section}.{key}", kind, id=f"{section}.{key}")
    for section in SETTINGS
    for key, (kind, _, _) in (section_settings(section, {}) or {}).items()
]
SMALL = ["data.shots=1", "data.queries=1"]


@pytest.mark.parametrize(
    ("choice", "key", "kind"),
    [*EVERY_KEY, *(pytest.param([], key, setting.type, id=key) for key, setting in TOP_LEVEL.items())],
)
def test_every_wrong_value_of_every_key_is_named(write, choice, key, kind):
    path = write(EXAMPLE)
    for value in wrong_values(kind):
        (line,) = complaints(path, [*choice, f"{key}={value}"])
        assert line.startswith(f"command line: {key} = "), value
        assert line.endswith(f": must be {describe_values(kind)}"), value


@pytest.mark.parametrize(("choice", "key", "kind"), EVERY_KEY)
def test_every_right_value_of_every_key_is_taken(write, choice, key, kind, monkeypatch):
    monkeypatch.setattr("fmaml.config.load.RULES", [])  # they bind several keys
    path = write(EXAMPLE)
    for text, value in right_values(kind).items():
        small = [] if f"data.name={CONTROL}" in str(choice) else SMALL  # it has no examples
        found = put(load_config(path, [*choice, *small, f"{key}={text}"]), key)
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize("key", ["algorithm.inner_lr", "algorithm.steps", "optimizer.lr", "train.meta_batch"])
def test_a_missing_key_is_named_with_what_to_give(write, key):
    word = key.partition(".")[2]
    entry = next(
        part for part in EXAMPLE.replace("}", ",").replace("{", ",").split(",") if f" {word}: " in f" {part}: "
    )
    path = write(EXAMPLE.replace(f",{entry}", ""))
    (line,) = complaints(path)
    assert line.startswith(f"{path}: {key}: missing; give a ")


# What a slip is told


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "algorithm.inner_lrr=0.4",
            "algorithm.inner_lrr = 0.4: unknown key; did you mean algorithm.inner_lr?",
        ),
        ("algorithm.lr=0.4", "algorithm.lr = 0.4: unknown key; did you mean optimizer.lr?"),
        ("algorithm.rate=0.4", "algorithm.rate = 0.4: unknown key; algorithm takes inner_lr, steps, "),
        ("data.shoots=3", "data.shoots = 3: unknown key; did you mean data.shots?"),
        ("inner_lr=0.4", "inner_lr = 0.4: unknown key; did you mean algorithm.inner_lr?"),
        ("dat.ways=3", "dat.ways = 3: unknown key; did you mean data.ways?"),
        ("data.way=3", "data.way = 3: unknown key; did you mean data.ways?"),
        ("sed=3", "sed = 3: unknown key; did you mean seed?"),
        ("modle={}", "modle = {}: unknown key; did you mean model?"),
        ("model.hidden=[8]", "model.hidden = [8]: unknown key for this model.name; mlp takes it"),
        ("model.qqq=8", "model.qqq = 8: unknown key; model takes width, pool, norm"),
        ("model.name=conv5", 'model.name = "conv5": must be one of conv4, resnet12, mlp'),
        ("model.name=[conv4]", 'model.name = ["conv4"]: must be one of conv4, resnet12, mlp'),
        (
            "model=mlp",
            'model = "mlp": must be a section with keys of its own; did you mean model.name = mlp?',
        ),
        ("train=5", "train = 5: must be a section: lines of key: value below it"),
        ("data.name.x=5", "data.name.x = 5: unknown key"),
        ("data.ways", "data.ways: not an override; write section.key=value, such as data.ways=20"),
        ("=3", "=3: not an override"),
        ("data.ways=[3", "data.ways:1:1: a bracket that is not closed; write [1, 2]"),
        ("seed=" + "9" * 5000, "seed:1:1: a whole number of more than 18 digits"),
    ],
)
def test_a_slip_on_the_command_line(write, override, said):
    (line,) = complaints(write(EXAMPLE), [override])
    assert line.startswith(f"command line: {said}")


def test_all_faults_are_told_at_once_each_with_where_it_stands(write):
    path = write(EXAMPLE.replace("ways: 5", "ways: 1, shotz: 2").replace("meta_steps: 100, ", ""))
    assert complaints(path, ["model.width=0", "seed=x"]) == [
        'command line: seed = "x": must be a whole number, 0 or more and below 4294967296',
        f"{path}: data.shotz = 2: unknown key; did you mean data.shots?",
        f"{path}: data.ways = 1: must be {describe_values(WAYS)}",
        "command line: model.width = 0: must be a whole number, 1 or more",
        f"{path}: train.meta_steps: missing; give a whole number, 0 or more",
    ]


def test_a_missing_section_and_an_empty_one(write):
    assert load_config(write(EXAMPLE + "eval:\n"))["eval"]["tasks"] == 600
    path = write(EXAMPLE.replace("model: {name: conv4}\n", ""))
    (message,) = complaints(path)
    assert message == f"{path}: model.name: missing; give one of {', '.join(TABLE['model'])}"
