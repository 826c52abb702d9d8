"""`--quick`: what it lowers, what it keeps, and what stands in for missing data."""

import pytest

from fmaml.config.load import load_config, setting_value
from fmaml.config.packaged import experiment_names
from fmaml.config.quick import FEWEST_STEPS, META_STEPS, has_images, load_quick, quick_settings

VALIDATING = ("validate_every", "validate_tasks")
NEEDS_FILE = {"photos": ["data.root=."], "table": [], "signals": []}


def quick(experiment: str, *overrides: str):
    told: list[str] = []
    config, stand_in = load_quick(experiment, overrides, told.append)
    return config, stand_in, told


def test_omniglot_has_the_steps_that_the_costs_are_relative_to():
    config, _, told = quick("omniglot")
    assert config["train"]["meta_steps"] == META_STEPS
    assert config["eval"]["tasks"] == 100
    assert config["data"]["download"] is False
    assert told == [
        "--quick: 1,000 of 8,000 meta-steps, 4 of 16 tasks a meta-step, 100 of 600 test tasks; "
        "about two minutes on two cores; without --quick it runs in full"
    ]


@pytest.mark.parametrize("experiment", experiment_names())
def test_every_experiment_gets_shorter_and_keeps_its_other_settings(experiment):
    overrides = NEEDS_FILE.get(experiment, [])
    full = load_config(experiment, overrides)
    short, _, _ = quick(experiment, *overrides)
    lowered = quick_settings(full)
    assert set(lowered) <= {f"train.{key}" for key in ("meta_steps", "meta_batch", *VALIDATING)} | {"eval.tasks"}
    assert min(FEWEST_STEPS, full["train"]["meta_steps"]) <= short["train"]["meta_steps"] <= full["train"]["meta_steps"]
    assert short["eval"]["tasks"] <= 100
    for key, value in lowered.items():
        section, _, name = key.partition(".")
        assert setting_value(short, key) == value < setting_value(full, key)
        full[section][name] = value
    full["data"] |= {"download": False} if "download" in full["data"] else {}
    assert short == full
    assert not has_images(full) or quick_settings(short) == {}


def test_an_experiment_that_is_short_already_says_so():
    _, _, told = quick("omniglot", "train.meta_steps=10", "train.meta_batch=2", "eval.tasks=5")
    assert told == ["--quick: the experiment is already short"]


def test_larger_images_get_fewer_steps():
    steps = [quick(name)[0]["train"]["meta_steps"] for name in ("omniglot", "cifar_fs", "mini_imagenet")]
    assert steps[0] > steps[1] > steps[2] >= FEWEST_STEPS


def test_without_images_a_tenth_of_the_steps_is_left_and_no_time_is_promised():
    config, stand_in, told = quick("sinusoid")
    assert config["train"]["meta_steps"] == 7000
    assert not has_images(config)
    assert stand_in is None
    assert "minutes" not in told[0]


def test_settings_of_the_command_line_are_kept():
    config, _, _ = quick("omniglot", "train.meta_steps=7000", "eval.tasks=500")
    assert (config["train"]["meta_steps"], config["eval"]["tasks"]) == (7000, 500)
    assert config["train"]["validate_tasks"] == 50


def test_built_in_characters_stand_in_for_published_images_alone():
    _, stand_in, told = quick("mini_imagenet")
    assert stand_in is not None
    config = stand_in()
    assert config["data"]["name"] == "glyphs"
    assert config["train"]["meta_steps"] > 100  # as many as small images get
    assert len(told) == 2
    assert quick("omniglot", "data.root=here")[1] is None
    assert quick("photos", "data.root=here")[1] is None
