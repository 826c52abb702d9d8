"""The trained models that come with fmaml: small, whole, with a card, and as good as it says."""

import io
import math
import random
import re
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

import fmaml
from fmaml.config.load import load_config
from fmaml.data.dataset_facts import class_names
from fmaml.data.sources.omniglot import omniglot
from fmaml.models.find_model import SHELF, metadata_on_shelf, model_names
from fmaml.models.model_card import card, command_of, model_summary, overview_of_models

NAMES = ["omniglot", "omniglot_prototypes", "photographs", "sinusoid"]
PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
TASKS = 60


def test_they_are_there_and_small():
    assert model_names() == NAMES
    assert sum(path.stat().st_size for path in SHELF.iterdir()) < 8_000_000


@pytest.mark.parametrize("name", NAMES)
def test_each_is_whole_and_its_card_says_what_it_is(name):
    about = metadata_on_shelf(name)
    assert fmaml.load(name).metadata == about
    assert (SHELF / f"{name}.md").read_text(encoding="utf-8") == card(about)
    assert re.fullmatch(r"[0-9a-f]{12}", about["environment"]["commit"])
    assert about["tasks"] == 600
    assert about["data"]["license"]
    assert name in overview_of_models()


@pytest.mark.parametrize("name", NAMES)
def test_the_command_of_its_card_gives_its_settings(name):
    _, _, experiment, *overrides = command_of(metadata_on_shelf(name)).split()
    config, about = load_config(experiment, overrides), metadata_on_shelf(name)["config"]
    for section in ("model", "algorithm", "optimizer", "eval"):
        assert about[section].items() <= config[section].items()  # settings may have been added since
    assert config["train"]["meta_steps"] == about["train"]["meta_steps"]


def test_the_summary_is_that_of_the_model_itself_not_of_a_baseline():
    about = metadata_on_shelf("omniglot")
    assert about["config"]["algorithm"]["name"] == "maml"
    columns = {
        "maml, transductive (x)": 0.9,
        "maml, inductive (x)": 0.8,
        "joint training, fine-tuned, inductive (x)": 0.7,
    }
    summary = model_summary({**about, "results": {label: [[mean, 0.01]] for label, mean in columns.items()}})
    assert summary.endswith("accuracy 80.00% ± 1.00% (maml, inductive (x))")


@pytest.mark.parametrize("name", NAMES)
def test_its_page_has_its_figure(name):
    mean, ci95 = list(metadata_on_shelf(name)["results"].values())[-1][-1]
    figure = f"{mean:.3f} ± {ci95:.3f}" if name == "sinusoid" else f"{100 * mean:.2f} ± {100 * ci95:.2f} %"
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}`"))
    assert figure in line


def drawings_of_the_test_split() -> dict[str, list[bytes]]:
    """The image files of each test character, from both archives."""
    source = omniglot(seed=0, device=torch.device("cpu"))
    found: dict[str, list[bytes]] = {name: [] for name in class_names("omniglot", "test")}
    for path in source.about["files"]:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                character = "/".join(name.split("/")[-4:-1])
                if name.endswith(".png") and character in found:
                    found[character].append(archive.read(name))
    return found


@pytest.mark.real_data("omniglot")
@pytest.mark.parametrize("name", ["omniglot", "omniglot_prototypes"])
def test_drawings_of_unseen_characters_are_named_as_well_as_the_report_says(name):
    """Read from the image files themselves, each named by itself: within both intervals of the inductive accuracy."""
    files = drawings_of_the_test_split()
    learner, draw = fmaml.load(name), random.Random(0)
    accuracies: list[float] = []
    for _ in range(TASKS):
        drawn = {c: draw.sample(files[c], 6) for c in draw.sample(sorted(files), 5)}
        pictures = {c: [Image.open(io.BytesIO(file)) for file in found] for c, found in drawn.items()}
        adapted = learner.adapt({c: found[:1] for c, found in pictures.items()})
        labels, _ = adapted.predict([picture for found in pictures.values() for picture in found[1:]])
        truth = [c for c in pictures for _ in range(5)]
        accuracies.append(sum(map(str.__eq__, labels, truth)) / 25)
    values = torch.tensor(accuracies)
    reported, ci95 = list(learner.metadata["results"].values())[-1][-1]
    assert abs(values.mean() - reported) < math.hypot(ci95, 1.96 * float(values.std()) / math.sqrt(TASKS))


@pytest.mark.slow
@pytest.mark.real_data("omniglot")
@pytest.mark.parametrize("name", ["sinusoid", "omniglot", "omniglot_prototypes"])
def test_the_command_of_its_card_makes_it_again(name, tmp_path):
    """Hours; another machine gives other bits, and the same accuracy within the intervals."""
    from fmaml.cli.main import main

    assert (
        main([*command_of(metadata_on_shelf(name)).split()[1:], "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    )
    again = fmaml.load(tmp_path / "out").metadata["results"]
    for label, column in metadata_on_shelf(name)["results"].items():
        (mean, ci95), (now, now_ci95) = column[-1], again[label][-1]
        assert abs(mean - now) < 2 * math.hypot(ci95, now_ci95)
