"""Rules over several settings."""

import pytest
from example import EXAMPLE, complaints

from fmaml.config.load import load_config
from fmaml.config.registry import TABLE, TRAITS

MARKOV = ["data.name=markov", "model.name=transformer"]
SINUSOID = ["data.name=sinusoid", "model.name=mlp"]
NAVIGATION = ["data.name=examples.control.navigation:navigation", "model.name=examples.control.policy:policy"]
REPTILE = ["algorithm.name=reptile", "algorithm.minibatch=2"]


@pytest.mark.parametrize(
    ("overrides", "key", "cure"),
    [
        (["data.ways=101"], "data.ways", "split val has 100 classes; give at most 100"),
        (["data.ways=401", "data.rotate=[train, val, test]"], "data.ways", "split val has 400 classes"),
        (["data.ways=424", "data.rotate=[val]"], "data.ways", "give at most 400"),
        (["data.shots=16"], "data.shots", "with data.queries = 5 this exceeds the 20 images"),
        (["data.name=glyphs", "data.queries=20"], "data.shots", "with data.queries = 20"),
        (["data.rotate=[]", "data.train_ways=1101"], "data.train_ways", "split train has 1100 classes; give at most"),
        (["data.name=mini_imagenet", "data.ways=17"], "data.ways", "split val has 16 classes; give at most 16"),
        (["data.name=cifar_fs", "data.ways=[2, 17]"], "data.ways", "split val has 16 classes; give at most 16"),
        (["data.name=cifar_fs", "data.shots=[1, 586]"], "data.shots", "exceeds the 600 images of a class"),
        (["data.name=glyphs", "data.ways=[8, 3]"], "data.ways", "a range is [smallest, largest]; give [3, 8]"),
        (["data.name=folder", "data.root=x", "data.fractions=[0.5, 0.5, 0.5]"], "data.fractions", "sum to 1"),
        (["train.average=0.9", "train.shard_optimizer=true"], "train.average", "give null"),
        (["algorithm.name=protonet", "train.baseline=true"], "train.baseline", "protonet does not have"),
        (
            ["algorithm.name=protonet", *SINUSOID],
            "algorithm.name",
            "needs class numbers as targets, which data.name = sinusoid does not have; give ",
        ),
        (
            ["algorithm.name=r2d2", *MARKOV],
            "algorithm.name",
            "needs one target for each example, which data.name = markov",
        ),
        (
            [*SINUSOID, "model.name=conv4"],
            "model.name",
            "which data.name = sinusoid does not have; give mlp",
        ),
        ([*REPTILE, "data.shots=[1, 3]"], "algorithm.minibatch", "data.ways or data.shots is a range; give null"),
        ([*REPTILE, "algorithm.minibatch=6"], "algorithm.minibatch", "in training has 5 examples; give at most 5"),
        ([*REPTILE, "algorithm.minibatch=21", "data.train_ways=20"], "algorithm.minibatch", "has 20 examples"),
        ([*REPTILE, "algorithm.minibatch=6", "data.shots=2", "data.train_shots=1"], "algorithm.minibatch", "has 5"),
        (
            [*NAVIGATION, *REPTILE],
            "algorithm.minibatch",
            "which data.name = examples.control.navigation:navigation lacks; ",
        ),
        (["data.train_shots=16"], "data.train_shots", "give train_shots + queries of at most 20"),
        (["model.norm=group", "model.width=12"], "model.width", 'norm = "group" needs a multiple of 8'),
        ([*MARKOV, "model.heads=3"], "model.width", "model.heads = 3 must divide it"),
        (
            [*MARKOV, "model.name=conv4"],
            "model.name",
            "it needs images, which data.name = markov does not",
        ),
        (
            ["model.name=transformer"],
            "model.name",
            "it needs passages of symbols, which data.name = omniglot",
        ),
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
        ["data.train_shots=15"],
        [*REPTILE, "algorithm.minibatch=20", "data.train_ways=20"],
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
    assert load_config(write(EXAMPLE), overrides)


def test_every_trait_that_is_needed_is_one_that_some_data_gives():
    """A misspelt trait would fit nothing, or be given to nobody."""
    entries = [entry for names in TABLE.values() for entry in names.values()]
    needed = frozenset().union(*(entry.needs for entry in entries))
    given = frozenset().union(*(entry.gives for entry in entries))
    assert needed <= given == TRAITS.keys() - {"own_loss"}  # that of a source outside the package
    assert all(bool(entry.gives) == (section == "data") for section, names in TABLE.items() for entry in names.values())


def test_a_setting_that_was_not_given_is_not_blamed():
    (line,) = complaints("omniglot", ["data.queries=25"])
    assert ": data.shots = " in line
