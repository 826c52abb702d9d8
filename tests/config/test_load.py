"""What is filled in, and in which order; what the command line changes."""

from itertools import product

import pytest
import yaml
from example import EXAMPLE, complaints

from fmaml.config import packaged
from fmaml.config.load import load_config
from fmaml.config.registry import SETTINGS, TABLE
from fmaml.config.strict_yaml import dump_yaml, parse_yaml


def test_defaults_are_filled_in_and_sections_stand_in_a_fixed_order(write):
    config = load_config(write("\n".join(reversed(EXAMPLE.splitlines()))))
    assert list(config) == ["name", "seed", *TABLE, *SETTINGS]
    assert config["name"] == "mine"
    assert config["seed"] == 0
    assert config["model"] == {"name": "conv4", "width": 64, "pool": "stride", "norm": "batch"}
    assert config["optimizer"] == {"name": "adam", "lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-8}
    assert config["eval"]["tasks"] == 600


@pytest.mark.parametrize(
    ("experiment", "override"),
    [
        *product(packaged.experiment_names(), ["seed=7", "name=1e-3x", "optimizer.lr=1e-12"]),
        ("omniglot", "data.root='on'"),
        ("omniglot", "data.root=~"),
    ],
)
def test_what_is_shown_loads_as_the_same_config(write, experiment, override):
    config = load_config(experiment, [override])
    assert load_config(write(dump_yaml(config))) == config
    assert dump_yaml(load_config(write(dump_yaml(config)))) == dump_yaml(config)


@pytest.mark.parametrize("text", ["1e-3", "on", "null", "007", "1_000", ".5", "-", "a: b", "true"])
def test_text_that_looks_like_something_else_stays_text(text):
    assert parse_yaml(dump_yaml({"x": text}), "here") == {"x": text}


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "+1e-3", "1.e-3", ".001", "0.001", "1.0e-3"])
def test_every_way_to_write_a_float(write, number):
    assert load_config(write(EXAMPLE.replace("1e-3", number)))["optimizer"]["lr"] == 0.001


def test_a_whole_number_will_do_for_a_float_and_underscores_and_zeros_are_decimal(write):
    config = load_config(write(EXAMPLE), ["optimizer.lr=1", "train.meta_steps=60_000", "seed=010"])
    assert config["optimizer"]["lr"] == 1.0
    assert isinstance(config["optimizer"]["lr"], float)
    assert config["train"]["meta_steps"] == 60000
    assert config["seed"] == 10


def test_pyyaml_itself_is_left_as_it_was():
    assert yaml.safe_load("[1e-3, on, 010]") == ["1e-3", True, 8]


# Choosing another function on the command line


def test_keys_of_the_file_that_only_the_old_function_takes_are_left_out(write):
    notes: list[str] = []
    path = write(EXAMPLE.replace("ways: 5", "ways: 7, root: /somewhere"))
    config = load_config(path, ["data.name=glyphs"], notes.append)
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
