"""The experiments that travel with fmaml: each loads, builds, and says of itself what a reader needs."""

import configparser
from pathlib import Path

import pytest

import fmaml
from fmaml.config import packaged
from fmaml.config.listing import overview
from fmaml.config.load import load_config
from fmaml.config.registry import TABLE
from fmaml.config.settings import TrainSettings
from fmaml.config.strict_yaml import parse_yaml
from fmaml.errors import Error

NAMES = packaged.experiment_names()
OTHERS_NUMBERS = {  # beside which stands not MAML's published number but its own
    "omniglot_reptile": "97.68 +- 0.04 % (arXiv 1803.02999",
    "omniglot_imaml": "99.16 +- 0.35 % (arXiv 1909.04630",
}
OMNIGLOT = [name for name in NAMES if "omniglot" in name]
LANGUAGES = ["languages", "markov", "lora", "stream"]
TABLES = ["table", "signals"]  # `tests/data` builds these
HEADER = ["command", "published", "ours", "hardware", "time", "commit"]
PUBLISHED = {  # ways and shots: accuracy and interval, MAML, arXiv 1703.03400, table 1
    "5w1s": "98.7 +- 0.4 %",
    "5w5s": "99.9 +- 0.1 %",
    "20w1s": "95.8 +- 0.3 %",
    "20w5s": "98.9 +- 0.2 %",
}
HYPERPARAMETERS = {  # the same, appendix A.1: inner_lr, steps, meta_batch, steps of the evaluation
    "paper/omniglot_5w1s": (0.4, 1, 32, 3),
    "paper/omniglot_5w5s": (0.4, 1, 32, 3),
    "paper/omniglot_20w1s": (0.1, 5, 16, 5),
    "paper/omniglot_20w5s": (0.1, 5, 16, 5),
}


def text(name: str) -> str:
    return (packaged.FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def task(name: str) -> str:
    """Such as 5w1s."""
    data = load_config(name)["data"]
    return f"{data['ways']}w{data['shots']}s"


def test_the_four_omniglot_tasks_are_there_as_published_and_for_a_small_machine():
    assert set(HYPERPARAMETERS) < set(NAMES)
    assert {task(name) for name in HYPERPARAMETERS} == set(PUBLISHED)
    assert {task(name) for name in set(OMNIGLOT) - set(HYPERPARAMETERS)} == set(PUBLISHED)


@pytest.mark.parametrize("name", NAMES)
def test_the_header_tells_what_it_is_how_to_run_it_and_what_to_expect(name):
    found = packaged.header(name)
    assert [key for key in HEADER if not found.get(key)] == []
    assert found["command"] == f"fmaml run {name}"


@pytest.mark.parametrize("name", OMNIGLOT)
def test_the_header_of_an_omniglot_task_names_it_and_the_published_number(name):
    assert f"published   {OTHERS_NUMBERS.get(name) or PUBLISHED[task(name)]}" in text(name)
    ways, shots = task(name).rstrip("s").split("w")
    assert packaged.headline(name).startswith(f"{ways}-way {shots}-shot ")


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_the_file_is_in_the_config_as_written(name):
    tree, config = parse_yaml(text(name), name), load_config(name)
    for section in tree.keys() - {"name"}:
        assert tree[section].items() <= config[section].items()


def test_an_example_of_the_checkout_is_listed_and_suggested(tmp_path, monkeypatch):
    (tmp_path / "examples/kites").mkdir(parents=True)
    (tmp_path / "examples/kites/glider.yaml").write_text("# Gliders in the wind\n\nseed: 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packaged, "EXAMPLES", tmp_path / "examples")
    assert "  examples/kites/glider.yaml  Gliders in the wind" in overview().splitlines()
    missing = "no such file, and no experiment of that name; "
    for name in ("glider", "glidr"):
        with pytest.raises(Error, match=f"^{name}: {missing}did you mean examples/kites/glider.yaml. `fmaml ls` lists"):
            packaged.find_experiment(name, print)
    monkeypatch.chdir("/")
    with pytest.raises(Error, match=f"did you mean {tmp_path.relative_to('/')}/examples/kites/glider.yaml"):
        packaged.find_experiment("glider", print)
    monkeypatch.setattr(packaged, "EXAMPLES", tmp_path / "absent")
    assert "glider" not in overview()
    with pytest.raises(Error, match=f"^glider: {missing}`fmaml ls` lists them; a checkout of fmaml has more, in exa"):
        packaged.find_experiment("glider", print)


def test_each_has_a_folder_of_its_own_for_its_runs():
    assert len({load_config(name)["name"] for name in NAMES}) == len(NAMES)


PHOTOGRAPHS = {  # shots, meta_batch
    "mini_imagenet": (1, 4),
    "mini_imagenet_5w5s": (5, 2),
    "cifar_fs": (1, 4),
    "cifar_fs_5w5s": (5, 2),
}


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_published_hyperparameters_of_mini_imagenet(name):
    """arXiv 1703.03400, appendix A.1: 15 queries a class, 5 steps of 0.01 in training and 10 in evaluation."""
    config = load_config(name)
    data, train = config["data"], config["train"]
    assert (data["shots"], train["meta_batch"]) == PHOTOGRAPHS[name]
    assert (data["ways"], data["queries"], train["meta_steps"], train["clip"]) == (5, 15, 60_000, 10)
    assert {"name": "maml", "inner_lr": 0.01, "steps": 5, "first_order": False}.items() <= config["algorithm"].items()
    assert (config["optimizer"]["name"], config["optimizer"]["lr"], config["eval"]["steps"]) == ("adam", 0.001, 10)
    assert config["model"] == {"name": "conv4", "width": 32, "pool": "max", "norm": "batch"}


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_the_published_hyperparameters(name):
    config = load_config(name)
    algorithm, train = config["algorithm"], config["train"]
    found = (algorithm["inner_lr"], algorithm["steps"], train["meta_batch"], config["eval"]["steps"])
    assert found == HYPERPARAMETERS[name]
    assert (train["meta_steps"], train["schedule"], train["clip"]) == (60_000, "constant", None)
    assert (config["optimizer"]["name"], config["optimizer"]["lr"]) == ("adam", 0.001)
    assert config["model"] == {"name": "conv4", "width": 64, "pool": "stride", "norm": "batch"}
    assert config["data"]["queries"] == config["data"]["shots"]
    assert config["data"]["rotate"] == ["train", "val", "test"]
    assert not algorithm["first_order"]


FAMILY = [name for name in NAMES if name.startswith("algorithms/")]


OWN_DATA = {"streamed": "stream", "pretrain": "cifar_fs_pretrain"}  # algorithms that need tasks in order, or batches


def test_every_algorithm_of_the_public_api_has_an_experiment_of_its_own():
    named = {name.removeprefix("algorithms/"): load_config(name)["algorithm"]["name"] for name in FAMILY}
    public = {name: name for name in TABLE["algorithm"] if name in fmaml.__all__ and name not in OWN_DATA}
    assert named == public | {"fomaml": "maml", "maml_5_steps": "maml"}
    assert load_config("algorithms/fomaml")["algorithm"]["first_order"]
    assert {name: load_config(experiment)["algorithm"]["name"] for name, experiment in OWN_DATA.items()} == {
        name: name for name in OWN_DATA
    }


@pytest.mark.parametrize("name", FAMILY)
def test_one_problem_and_one_budget_for_all_algorithms(name):
    """Only the algorithm differs, and where one was published the outer optimizer."""
    config, maml = load_config(name), load_config("algorithms/maml")
    for section in ("data", "model", "train", "eval", "seed"):
        assert config[section] == maml[section]
    assert config["optimizer"] == maml["optimizer"] or name == "algorithms/reptile"


def test_the_wheel_takes_every_folder_of_experiments_along():
    setup = configparser.ConfigParser()
    assert setup.read(packaged.FOLDER.parent.parent / "setup.cfg")
    for name in NAMES:
        package = ".".join(["fmaml.experiments", *name.split("/")[:-1]])
        assert setup["options.package_data"][package] == "*.yaml"


def test_the_package_links_to_the_experiments_at_the_top():
    """Or, in an sdist, which holds no links, has the same files."""
    top = Path(__file__).parents[2]
    if (top / "PKG-INFO").exists():
        assert all(text(name) == (top / f"experiments/{name}.yaml").read_text(encoding="utf-8") for name in NAMES)
        return
    assert packaged.FOLDER.is_symlink()
    assert packaged.FOLDER.resolve() == top / "experiments"


@pytest.mark.parametrize("name", sorted({*NAMES} - {*LANGUAGES, *TABLES}))
def test_each_builds_what_it_says(name):
    import torch

    from fmaml.config.build import build

    config = load_config(name, ["data.name=glyphs", "data.rotate=[]"])
    experiment = build(config, torch.device("cpu"))
    tasks = experiment.source.sample("train", 1, range(2))
    data = config["data"]
    ways = data["train_ways"] or data["ways"]
    examples, outputs = ways * (data["train_shots"] or data["shots"]), ways
    if data["train_batch"]:
        examples, outputs = data["train_batch"] // 2, experiment.source.about["classes"]["train"]
    assert tasks.support.x.shape == (2, examples, 1, 28, 28)
    params = experiment.model.init(torch.Generator().manual_seed(0))
    assert experiment.model.apply(params, tasks.support.x[0]).shape[1] == outputs


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_languages_build_what_they_say(name):
    import torch

    from fmaml.config.build import build

    config = load_config(name, ["data={name: markov, shots: 15}", "model={name: transformer, width: 8}"])
    experiment = build(config, torch.device("cpu"))
    tasks = experiment.source.sample("train", 1, range(2))
    params = experiment.model.init(torch.Generator().manual_seed(0))
    assert experiment.model.apply(params, tasks.query.x[0]).shape == (4, 64, 16)


def test_no_training_at_all_still_builds_an_optimizer():
    from fmaml.config.build import outer_optimizer

    config = load_config("omniglot", ["train.schedule=cosine", "train.meta_steps=0"])
    assert outer_optimizer(config["optimizer"], TrainSettings(**config["train"]))


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (["train.schedule=constant"], [0.1, 0.1, 0.1]),
        (["train.schedule=cosine"], [0.1, 0.075, 0.025]),
        (["train.schedule=constant", "train.clip=0.5"], [0.05, 0.05, 0.05]),
        (["train.schedule=cosine", "train.clip=0.5"], [0.05, 0.0375, 0.0125]),
    ],
)
def test_schedule_and_clip_shape_the_outer_optimizer(overrides, steps):
    import torch

    from fmaml.config.build import outer_optimizer

    config = load_config("omniglot", ["optimizer={name: sgd, lr: 0.1}", "train.meta_steps=3", *overrides])
    outer = outer_optimizer(config["optimizer"], TrainSettings(**config["train"]))
    theta = {"w": torch.zeros(1)}
    state = outer.init(theta)
    for step in steps:
        before = theta["w"]
        theta, state = outer.step({"w": torch.ones(1)}, state, theta)
        torch.testing.assert_close(before - theta["w"], torch.tensor([step]))
