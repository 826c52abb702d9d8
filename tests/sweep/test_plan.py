"""Every combination, once, with its config and a folder of its own."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmaml.config.load import load_config
from fmaml.errors import Error
from fmaml.sweep.plan import folder_names, plan

LISTS = {
    "algorithm.inner_lr": [0.1, 0.4, 0.001],
    "model.hidden": [[40, 40], [80]],
    "data.shots": [5, 10],
    "algorithm.name": ["maml", "anil"],
}


def folders(*overrides: str, **seeds: Any) -> list[str]:
    return [run.folder for run in plan("sinusoid", overrides, print, **seeds)]


@settings(deadline=None, max_examples=12)
@given(st.lists(st.sampled_from(list(LISTS)), unique=True, min_size=1), st.integers(1, 3))
def test_the_runs_are_the_product_and_each_has_the_config_of_its_own_overrides(keys, repeat):
    overrides = [f"{key}={','.join(str(value) for value in LISTS[key])}" for key in keys]
    runs = plan("sinusoid", overrides, print, repeat=repeat)
    combinations = list(itertools.product(range(repeat), *(LISTS[key] for key in keys)))
    assert [tuple(run.settings.values()) for run in runs] == combinations
    assert len({run.folder for run in runs}) == len(runs)
    for run in (runs[0], runs[-1]):
        assert run.config == load_config("sinusoid", [f"{key}={value}" for key, value in run.settings.items()])


def test_folders_say_what_differs():
    assert folders("algorithm.inner_lr=0.1,4e-1", "seed=3,1") == [
        "seed=3,inner_lr=0.1",
        "seed=3,inner_lr=0.4",
        "seed=1,inner_lr=0.1",
        "seed=1,inner_lr=0.4",
    ]
    assert folders("model.hidden=[40,40],[80]", "algorithm.name=maml,anil")[0] == "hidden=40_40,algorithm.name=maml"
    assert folders("seed=5", repeat=2) == ["seed=5", "seed=6"]
    assert folders(seeds=[7]) == ["seed=7"]
    assert folders("algorithm.inner_lr=1,2", "algorithm.inner_lr=0.1", seeds=[0]) == ["seed=0"]  # the last counts


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=60), unique=True, min_size=2, max_size=6))
def test_any_text_gives_a_folder_of_its_own_that_every_disk_takes(texts):
    names = folder_names([{"data.root": text} for text in texts])
    assert len({name.lower() for name in names}) == len(texts)
    assert all(len(name) < 200 and not set(name) & set('/\\:*?"<>| \n') and name.isascii() for name in names)


@pytest.mark.parametrize(
    ("overrides", "seeds", "said"),
    [
        (["algorithm.inner_lr=0.1,0.10"], {}, "algorithm.inner_lr = 0.1,0.10: 0.10 is given twice"),
        ([], {"seeds": [1, 1]}, "seed = 1,1: 1 is given twice"),
        (["seed=1,2"], {"seeds": [3]}, "--seeds: given together with seed=1,2; leave out one"),
        (["seed=1"], {"seeds": [3]}, "--seeds: given together with seed=1; leave out one"),
        (["algorithm.inner_lr=0.1,x"], {}, 'command line: algorithm.inner_lr = "x": must be a number, above 0'),
        (["algorithm.name=maml,protonet"], {}, 'command line: algorithm.name = "protonet": it needs class'),
        (["data.shots=1,2,3", "seed=0,1"], {"repeat": 2}, "--repeat: given together with seed=0,1"),
        ([], {"repeat": 101}, "101 of seed: 101 runs, but one command starts 100 at most; leave out values"),
        (["seed=x"], {"repeat": 2}, 'seed = "x": must be a whole number'),
    ],
)
def test_what_is_wrong_with_any_run_is_told_before_the_first(overrides, seeds, said):
    with pytest.raises(Error) as caught:
        plan("sinusoid", overrides, print, **seeds)
    assert said in str(caught.value)


def test_what_is_said_of_every_run_is_said_once():
    told = []
    plan("omniglot", ["model.name=mlp", "seed=0,1"], told.append)
    assert len(told) == len(set(told)) > 0
