"""A config is complete and right, or one message names everything wrong with it."""

import random
import re
import string
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fmaml.config import cross_checks, packaged
from fmaml.config.load import dump, load
from fmaml.config.registry import NAMELESS, TABLE
from fmaml.config.signature import words
from fmaml.config.strict_yaml import parse
from fmaml.config.validate import TOP, known_settings
from fmaml.errors import UserError
from fmaml.ranges import Count, Decay, Natural, NonNegative, OneOrTwo, Rate, Unit, Ways

EXAMPLE = """\
data: {name: omniglot, ways: 5}
model: {name: conv4}
algorithm: {name: maml, inner_lr: 0.4, steps: 1}
optimizer: {name: adam, lr: 1e-3}
train: {meta_steps: 100, meta_batch: 4}
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes, name: str = "mine.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def complaints(*args: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(*args)
    return str(caught.value).splitlines()


def put(config: dict[str, Any], key: str) -> Any:
    section, _, rest = key.partition(".")
    return config[section][rest] if rest else config[section]


# What is filled in, and in which order


def test_defaults_are_filled_in_and_sections_stand_in_a_fixed_order(write):
    config = load(write("\n".join(reversed(EXAMPLE.splitlines()))))
    assert list(config) == ["name", "seed", *TABLE, *NAMELESS]
    assert config["name"] == "mine"
    assert config["seed"] == 0
    assert config["model"] == {"name": "conv4", "width": 64, "pool": "stride", "norm": "batch"}
    assert config["optimizer"] == {"name": "adam", "lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-8}
    assert config["eval"]["tasks"] == 600


@pytest.mark.parametrize(
    ("experiment", "override"),
    [
        *product(packaged.names(), ["seed=7", "name=1e-3x", "optimizer.lr=1e-12"]),
        ("omniglot", "data.root='on'"),
        ("omniglot", "data.root=~"),
    ],
)
def test_what_is_shown_loads_as_the_same_config(write, experiment, override):
    if override.startswith("data.root") and "root" not in load(experiment)["data"]:
        pytest.skip("data that needs no file")
    config = load(experiment, [override])
    assert load(write(dump(config))) == config
    assert dump(load(write(dump(config)))) == dump(config)


@pytest.mark.parametrize("text", ["1e-3", "on", "null", "007", "1_000", ".5", "-", "a: b", "true"])
def test_text_that_looks_like_something_else_stays_text(text):
    assert parse(dump({"x": text}), "here") == {"x": text}


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "+1e-3", "1.e-3", ".001", "0.001", "1.0e-3"])
def test_every_way_to_write_a_float(write, number):
    assert load(write(EXAMPLE.replace("1e-3", number)))["optimizer"]["lr"] == 0.001


def test_a_whole_number_will_do_for_a_float_and_underscores_and_zeros_are_decimal(write):
    config = load(write(EXAMPLE), ["optimizer.lr=1", "train.meta_steps=60_000", "seed=010"])
    assert config["optimizer"]["lr"] == 1.0
    assert isinstance(config["optimizer"]["lr"], float)
    assert config["train"]["meta_steps"] == 60000
    assert config["seed"] == 10


def test_pyyaml_itself_is_left_as_it_was():
    assert yaml.safe_load("[1e-3, on, 010]") == ["1e-3", True, 8]


# Every key by wrong and right values


def or_none(kind: Any) -> Any:
    return kind | None


WHOLE = ["null", "abc", "true", "[1]", "{a: 1}", "1.5", "1e3", ".nan", ".inf", "'3'"]
NUMBER = ["null", "abc", "false", "[1]", "{a: 1}", ".nan", "-.inf", "1e400", "'0.1'"]
WORD = ["null", "abc", "1", "true", "[1]", "{a: 1}"]
LIST = ["null", "abc", "1", "true", "{a: 1}", "[abc]", "[true]", "[[1]]", "[null]"]
WAYS, SHOTS = Ways | tuple[Ways, Ways], Count | tuple[Count, Count]  # a number, or its least and greatest
WRONG: dict[Any, list[str]] = {
    Natural: [*WHOLE, "-1"],
    TOP["seed"].type: [*WHOLE, "-1", "4294967296"],
    Count: [*WHOLE, "0", "-1"],
    Ways: [*WHOLE, "1", "0", "-5"],
    OneOrTwo: [*WHOLE, "0", "3"],
    Rate: [*NUMBER, "0", "-1"],
    NonNegative: [*NUMBER, "-1e-9"],
    Decay: [*NUMBER, "1", "-0.1"],
    bool: ["null", "abc", "1", "0", "yes", "on", "'true'", "[true]"],
    bool | Literal["auto"]: ["null", "abc", "1", "0", "yes", "on", "'true'", "[true]", "[auto]"],
    TOP["name"].type: ["null", "1", "true", "a/b", "../x", ".x", "''", "a b", "[a]", "x" * 65],
    str | None: ["1", "true", "1e-3", "[a]", "{a: b}"],
    or_none(Count): [wrong for wrong in WHOLE if wrong != "null"] + ["0"],
    or_none(Ways): [wrong for wrong in WHOLE if wrong != "null"] + ["1"],
    or_none(Rate): [wrong for wrong in NUMBER if wrong != "null"] + ["0"],
    str: ["null", "1", "true", "1e-3", "[a]", "{a: b}"],
    tuple[str, ...]: ["null", "abc", "1", "true", "{a: 1}", "[1]", "[true]", "[[a]]", "[null]"],
    Sequence[Count]: [*LIST, "[0]", "[1.5]", "[40, -1]"],
    tuple[Decay, Decay]: [*LIST, "[0.9]", "[0.9, 0.9, 0.9]", "[0.9, 1]"],
    tuple[Unit, Unit, Unit]: [*LIST, "[0.5, 0.5]", "[2, 0, 0]", "[1, 1, -1]"],
    WAYS: [*(wrong for wrong in WHOLE if wrong != "[1]"), "1", "[2]", "[1, 3]", "[2, 3, 4]", "[2, 3.5]", "[]"],
    SHOTS: [*(wrong for wrong in WHOLE if wrong != "[1]"), "0", "[1]", "[0, 3]", "[2, 3, 4]", "[2, abc]", "[]"],
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
    bool: {"true": True, "false": False},
    bool | Literal["auto"]: {"true": True, "false": False, "auto": "auto"},
    str | None: {"null": None, "": None, "/some/where": "/some/where"},
    or_none(Count): {"null": None, "4": 4},
    or_none(Ways): {"null": None, "20": 20},
    or_none(Rate): {"null": None, "10": 10.0},
    tuple[str, ...]: {"[]": [], "[head.*]": ["head.*"], "['*.bias', conv1.weight]": ["*.bias", "conv1.weight"]},
    Sequence[Count]: {"[]": [], "[40, 40]": [40, 40]},
    tuple[Decay, Decay]: {"[0, 0.99]": [0.0, 0.99]},
    tuple[Unit, Unit, Unit]: {"[1, 0, 0]": [1.0, 0.0, 0.0], "[0.5, 0.25, 0.25]": [0.5, 0.25, 0.25]},
    WAYS: {"2": 2, "[2, 2]": [2, 2], "[3, 8]": [3, 8]},
    SHOTS: {"1": 1, "999999999999": 999999999999, "[1, 5]": [1, 5]},
    str: {"/some/where": "/some/where", "'1'": "1"},
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


EVERY_KEY = [
    pytest.param(
        [f"{section}.name={name}", *(f"{section}.{k}" for k in needed)],
        f"{section}.{key}",
        kind,
        id=f"{name}.{key}",
    )
    for section, names in TABLE.items()
    for name in names
    for needed in [["lr=1"] if section == "optimizer" else ["root=/images"] if name == "folder" else []]
    for key, (kind, _) in (known_settings(section, {"name": name}) or {}).items()
] + [
    pytest.param([], f"{section}.{key}", kind, id=f"{section}.{key}")
    for section in NAMELESS
    for key, (kind, _) in (known_settings(section, {}) or {}).items()
]
SMALL = ["data.shots=1", "data.queries=1"]
MARKOV = ["data.name=markov", "model.name=transformer"]


@pytest.mark.parametrize(
    ("choice", "key", "kind"),
    [*EVERY_KEY, *(pytest.param([], key, setting.type, id=key) for key, setting in TOP.items())],
)
def test_every_wrong_value_of_every_key_is_named(write, choice, key, kind):
    path = write(EXAMPLE)
    for value in wrong_values(kind):
        (line,) = complaints(path, [*choice, f"{key}={value}"])
        assert line.startswith(f"command line: {key} = "), value
        assert line.endswith(f": must be {words(kind)}"), value


@pytest.mark.parametrize(("choice", "key", "kind"), EVERY_KEY)
def test_every_right_value_of_every_key_is_taken(write, choice, key, kind, monkeypatch):
    monkeypatch.setattr("fmaml.config.load.RULES", [])  # they bind several keys
    path = write(EXAMPLE)
    for text, value in right_values(kind).items():
        found = put(load(path, [*choice, *SMALL, f"{key}={text}"]), key)
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
        ("inner_lr=0.4", "inner_lr = 0.4: unknown key; did you mean algorithm.inner_lr?"),
        ("dat.ways=3", "dat.ways = 3: unknown key; did you mean data.ways?"),
        ("data.way=3", "data.way = 3: unknown key; did you mean data.ways?"),
        ("sed=3", "sed = 3: unknown key; did you mean seed?"),
        ("modle={}", "modle = {}: unknown key; did you mean model?"),
        ("model.hidden=[8]", "model.hidden = [8]: unknown key for this model.name; mlp takes it"),
        ("model.qqq=8", "model.qqq = 8: unknown key; model takes width, pool, norm"),
        ("model.name=conv5", 'model.name = "conv5": must be one of conv4, mlp'),
        ("model.name=[conv4]", 'model.name = ["conv4"]: must be one of conv4, mlp'),
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
        f"{path}: data.ways = 1: must be {words(WAYS)}",
        "command line: model.width = 0: must be a whole number, 1 or more",
        f"{path}: train.meta_steps: missing; give a whole number, 0 or more",
    ]


def test_a_missing_section_and_an_empty_one(write):
    assert load(write(EXAMPLE + "eval:\n"))["eval"]["tasks"] == 600
    path = write(EXAMPLE.replace("model: {name: conv4}\n", ""))
    assert complaints(path) == [f"{path}: model.name: missing; give one of conv4, mlp, transformer"]


# Choosing another function on the command line


def test_keys_of_the_file_that_only_the_old_function_takes_are_left_out(write):
    notes: list[str] = []
    path = write(EXAMPLE.replace("ways: 5", "ways: 7, root: /somewhere"))
    config = load(path, ["data.name=glyphs"], notes.append)
    assert config["data"]["ways"] == 7
    assert "root" not in config["data"]
    assert notes == ["data.root of the file is left out: glyphs does not take it"]


def test_keys_that_were_typed_and_slips_are_never_left_out(write):
    path = write(EXAMPLE.replace("ways: 5", "rooot: /somewhere"))
    lines = complaints(path, ["data.name=glyphs", "data.root=/elsewhere"])
    assert lines[0].startswith(f"{path}: data.rooot = ")
    assert lines[1].startswith('command line: data.root = "/elsewhere": unknown key for this data.name; omniglot takes')
    (line,) = complaints(write(EXAMPLE), ["data={name: glyphs, root: /x}"])
    assert line.startswith('command line: data.root = "/x"')


# Rules over several settings

SINUSOID = ["data.name=sinusoid", "model.name=mlp"]
REPTILE = ["algorithm.name=reptile", "algorithm.minibatch=2"]


@pytest.mark.parametrize(
    ("overrides", "key", "cure"),
    [
        (["data.ways=101"], "data.ways", "split val has 100 classes; give at most 100"),
        (["data.ways=401", "data.rotate=[train, val, test]"], "data.ways", "split val has 400 classes"),
        (["data.ways=424", "data.rotate=[val]"], "data.ways", "give at most 400"),
        (["data.shots=16"], "data.shots", "with data.queries = 5 that is more than the 20 drawings"),
        (["data.name=glyphs", "data.queries=20"], "data.shots", "with data.queries = 20"),
        (["data.rotate=[]", "data.train_ways=1101"], "data.train_ways", "split train has 1100 classes; give at most"),
        (["data.name=mini_imagenet", "data.ways=17"], "data.ways", "split val has 16 classes; give at most 16"),
        (["data.name=cifar_fs", "data.ways=[2, 17]"], "data.ways", "split val has 16 classes; give at most 16"),
        (["data.name=cifar_fs", "data.shots=[1, 586]"], "data.shots", "more than the 600 images of a class"),
        (["data.name=glyphs", "data.ways=[8, 3]"], "data.ways", "from its least to its greatest; give [3, 8]"),
        (["data.name=folder", "data.root=x", "data.fractions=[0.5, 0.5, 0.5]"], "data.fractions", "add up to 1"),
        (["algorithm.name=protonet", "train.baseline=true"], "train.baseline", "protonet has none"),
        (
            ["algorithm.name=protonet", *SINUSOID],
            "algorithm.name",
            "compares classes, and data.name = sinusoid has none",
        ),
        (["algorithm.name=r2d2", *MARKOV], "algorithm.name", "compares classes, and data.name = markov has none"),
        ([*REPTILE, "data.shots=[1, 3]"], "algorithm.minibatch", "data.ways or data.shots is a range; give null"),
        ([*REPTILE, "algorithm.minibatch=6"], "algorithm.minibatch", "a support set has 5 examples; give at most 5"),
        ([*REPTILE, "algorithm.minibatch=6", "data.train_ways=20"], "algorithm.minibatch", "has 5 examples"),
        (["model.norm=group", "model.width=12"], "model.width", 'norm = "group" needs a multiple of 8'),
        ([*MARKOV, "model.heads=3"], "model.width", "model.heads = 3 must divide it"),
        ([*MARKOV, "model.name=conv4"], "model.name", "data.name = markov gives passages of symbols; give transformer"),
        (["model.name=transformer"], "model.name", "data.name = omniglot gives none; give conv4 or mlp"),
        ([*MARKOV, "data.symbols=257"], "data.symbols", "give at most 256"),
        ([*MARKOV, "data.symbols=41", "data.order=2"], "data.symbols", "give at most 40"),
    ],
)
def test_settings_that_do_not_go_together(write, overrides, key, cure):
    (line,) = complaints(write(EXAMPLE), overrides)
    assert f": {key} = " in line
    assert cure in line


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.ways=100"],
        ["data.ways=400", "data.rotate=[train, val]"],
        ["data.shots=15"],
        ["model.norm=group", "model.width=16"],
        ["model.norm=batch", "model.width=12"],
        ["model.name=mlp"],
        [*MARKOV, "model.heads=3", "model.width=9"],
        [*MARKOV, "data.symbols=256"],
        [*MARKOV, "data.symbols=40", "data.order=2"],
        ["data.name=udhr", "model.name=transformer"],
    ],
)
def test_the_rules_stop_at_their_bounds(write, overrides):
    assert load(write(EXAMPLE), overrides)


def test_the_rule_on_groups_knows_the_number_of_groups():
    from fmaml.nn import models

    assert models.GROUPS == cross_checks.GROUPS


# Files that are not an experiment

BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!python/object/apply:os.system [exit]", ":1:4: tags such as "),
        ("a: !!python/name:os.system", ":1:4: tags such as "),
        ("!!python/module:os", ":1:1: tags such as "),
        ("a: !x 3", ":1:4: tags such as !x"),
        (BOMB, ":1:4: anchors and aliases are not read here"),
        ("a: *nowhere", ":1:4: anchors and aliases"),
        ("<<: {a: 1}", "unknown key"),
        ("a: " + "[" * 10_000, "nested more than 20 deep"),
        ("a:\n" + "- " * 10_000, "nested more than 20 deep"),
        ("a: " + "{x: " * 10_000, "nested more than 20 deep"),
        ("data:\n  ways: 5\n  ways: 6\n", ":3:3: ways stands twice, first in line 2"),
        ("1: 2", ":1:1: a key must be a word"),
        ("null: 2", ":1:1: a key must be a word"),
        ('"a\\nb": 2', ":1:1: a key must be a word"),
        ("? [a]\n: 2", ":1:3: a key must be a word"),
        ("a: 1\n\tb: 2", ":2:1: a tab; indent with spaces"),
        ("a: [1", ":1:4: a bracket that is not closed; write [1, 2]"),
        ("a: {b: 1", ":1:4: a brace that is not closed; write {key: value"),
        ("a: 'b\nc: 1", ":1:4: a text in quotes that is not closed; "),
        ("a: 1\nb\n", ":2:1: a key without a colon; write key: value"),
        ("a: b: c", ":1:5: a colon too many, or a line too far to the right; "),
        ("a: - b", ":1:4: a dash where no list can begin; "),
        ("a: ? b", ":1:4: a question mark where no key can begin; "),
        ("a:\n  b: 1\n c: 2", ":3:2: a line indented in another way than those above it; "),
        ("a: [1, , 2]", ":1:8: a value is missing; "),
        ("a: @b", ":1:4: a character that begins no value; "),
        ('a: "\\x"', ":1:7: a backslash that means nothing in double quotes; "),
        ("a: |99\n b", ":1:6: text over several lines; "),
        ("a: &", ":1:5: anchors and aliases are not read here; "),
        ("a: !<x y", ":1:7: tags are not read here; "),
        ("a: !y!x 3", ":1:4: tags are not read here; "),
        ("%YAML x", ":1:7: lines that begin with % are not read here; "),
        ("a: 1\nb: 'x\0y'", ":2:6: the character '\\x00' is not allowed"),
        ("a: 1\n---\nb: 2\n", ":2:1: a second document; "),
        ("- a\n- b", "not an experiment; it needs the sections data, model"),
        ("", "not an experiment"),
        ("a: " + "9" * 5000, ":1:4: a whole number of more than 18 digits"),
        (b"\xff\xfea\x00", "not a text file (byte 0 is not UTF-8)"),
        ("a: " + "x" * 10_000_000, "larger than 64 KiB"),
        ("#" * 60_000 + "\n[" * 100, "nested"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line_at_once(write, text, said):
    path = write(text)
    begun = time.perf_counter()
    first, *_ = complaints(path)
    assert time.perf_counter() - begun < 1
    assert first.startswith(path)
    assert said in first


def test_a_byte_order_mark_is_no_fault(write):
    assert load(write(b"\xef\xbb\xbf" + EXAMPLE.encode()))["name"] == "mine"


@pytest.mark.parametrize(
    ("file", "name"),
    [("my own.yaml", "my-own"), ("_x.yaml", "x"), ("größe (2).yaml", "gr-e-2"), ("опыт.yaml", "experiment")],
)
def test_a_file_name_that_is_no_folder_name_gives_one_that_is(write, file, name):
    notes: list[str] = []
    assert load(write(EXAMPLE, file), (), notes.append)["name"] == name
    assert notes == [f"name = {name}, after the file's name"]
    assert load(write("name: fine\n" + EXAMPLE, file))["name"] == "fine"


def test_a_long_file_name_gives_a_name_cut_short(write):
    assert load(write(EXAMPLE, "x" * 80 + ".yaml"))["name"] == "x" * 64


# Anything at all

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["conv4", "mlp", "glyphs", "adamw", "maml", "1e-3", "vmap", "../x"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
SHIPPED = {name: packaged.FOLDER.joinpath(f"{name}.yaml").read_text(encoding="utf-8") for name in packaged.names()}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mutants") / "mutant.yaml"


def plan_or_message(path: Path, text: str) -> str:
    """The message, or nothing where there is a plan; a plan must survive being written and read."""
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        config = load(str(path))
    except UserError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert all(line.startswith(str(path)) for line in message.split("\n"))
        return message
    path.write_text(dump(config), encoding="utf-8")
    assert load(str(path)) == config
    return ""


@examples(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_mutated_setting_gives_a_plan_or_a_message_that_names_it(scratch, data):
    tree = yaml.safe_load(data.draw(st.sampled_from(list(SHIPPED.values()))))
    section = data.draw(st.sampled_from([*TABLE, *NAMELESS]))
    key = data.draw(st.sampled_from([*tree[section], "", "slip"]))
    name = f"{section}.{key}" if key else section
    if data.draw(st.booleans()) and key != "slip":
        del (tree[section] if key else tree)[key or section]
    else:
        (tree[section] if key else tree)[key or section] = data.draw(VALUES)
    message = plan_or_message(scratch, yaml.safe_dump(tree, sort_keys=False))
    assert not message or name in message or re.match(rf"{re.escape(str(scratch))}:\d+:\d+: ", message)


# Thousands of slips of the pen in the files that came with fmaml


def line_out(draw: random.Random, lines: list[str]) -> None:
    del lines[draw.randrange(len(lines))]


def line_twice(draw: random.Random, lines: list[str]) -> None:
    lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))


def lines_changed_over(draw: random.Random, lines: list[str]) -> None:
    one, two = draw.randrange(len(lines)), draw.randrange(len(lines))
    lines[one], lines[two] = lines[two], lines[one]


def other_type(draw: random.Random, lines: list[str]) -> None:
    at = draw.choice([i for i, line in enumerate(lines) if ": " in line and not line.startswith("#")])
    values = ["null", "", "abc", "3", "-1", "0", "1e-3", "1e400", ".nan", "true", "[1]", "[]", "{a: 1}", "'", "["]
    lines[at] = lines[at].partition(":")[0] + ": " + draw.choice([*values, "9" * 40])


def typo(draw: random.Random, lines: list[str]) -> None:
    at = draw.choice([i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")])
    place = draw.randrange(len(lines[at]))
    letter = draw.choice(["", draw.choice(string.ascii_letters), draw.choice("{}[]:,#&*!|>'\"%@`-? \t0.é\\")])
    lines[at] = lines[at][:place] + letter + lines[at][place + draw.randrange(2) :]


def indentation(draw: random.Random, lines: list[str]) -> None:
    at = draw.choice([i for i, line in enumerate(lines) if line.strip()])
    lines[at] = draw.choice(["", " ", "  ", "    ", "\t", "- "]) + draw.choice([lines[at], lines[at].strip()])


def cut_short(draw: random.Random, lines: list[str]) -> None:
    at = draw.randrange(len(lines))
    lines[at:] = [lines[at][: draw.randrange(len(lines[at]) + 1)]]


SLIPS = [line_out, line_twice, lines_changed_over, other_type, other_type, typo, typo, indentation, cut_short]
KEYS = {*TABLE, *NAMELESS, *TOP}


def slipped(draw: random.Random, text: str) -> bytes:
    """The text with one slip, or two or three, or one byte of it flipped."""
    if draw.random() < 0.15:
        content = bytearray(text.encode())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        return bytes(content)
    lines = text.splitlines()
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        if any(": " in line and not line.startswith("#") for line in lines):  # something is left to get wrong
            draw.choice(SLIPS)(draw, lines)
    return "\n".join(lines).encode()


WHOLE_FILE = r": not (a text file|an experiment)\b.*; "
PLACE = r":\d+:\d+: [^;]+; "  # line, column, what is wrong, what would be right
KEY = r": (?P<key>.+?)( = .+)?: .*(must |give |unknown key; )"


def settled(path: Path) -> bool:
    """Whether there is a plan, which must survive being written and read; else each line of the message is whole."""
    try:
        config = load(str(path))
    except UserError as error:
        for line in str(error).split("\n"):
            told = line.removeprefix(str(path))
            found = re.match(f"{WHOLE_FILE}|{PLACE}|{KEY}", told)
            assert found, line
            assert not found["key"] or found["key"].split(".")[0] in KEYS or "unknown key" in told, line
        return False
    path.write_text(dump(config), encoding="utf-8")
    assert load(str(path)) == config
    return True


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("slips", [110, pytest.param(3000, marks=pytest.mark.slow)])
def test_slips_in_a_shipped_file_end_in_a_plan_or_in_a_message(tmp_path, name, slips):
    """With 32 files at least 3,000 in all; of both ends there must be plenty."""
    assert slips * len(SHIPPED) >= 3000
    draw, path, plans = random.Random(name), tmp_path / "mutant.yaml", 0
    for _ in range(slips):
        path.write_bytes(slipped(draw, SHIPPED[name]))
        plans += settled(path)
    assert slips / 10 < plans < 9 * slips / 10
