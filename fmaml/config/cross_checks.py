"""Rules that bind several settings, checked before anything is loaded. Each yields (key, "what is wrong; a cure").

A rule knows settings, and what `fmaml.config.registry` says of a name, but no name itself: it holds for whatever takes
those settings.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from ..nn.constants import NORM_GROUPS
from .registry import TABLE, TRAITS
from .settings import Config

Broken: TypeAlias = Iterator[tuple[str, str]]
MOST_PROBABILITIES = 2**16  # in the table of a Markov chain
ROTATIONS = 4
FEW = 3  # names that a message suggests


def data_gives_what_is_needed(config: Config) -> Broken:
    """Whatever a name needs of the data, the data must give."""
    data = config["data"]["name"]
    gives = TABLE["data"][data].gives
    for section, names in TABLE.items():
        lacking = sorted(names[config[section]["name"]].needs - gives)
        if lacking:
            fitting = [name for name, entry in names.items() if entry.needs <= gives]
            cure = " or ".join(fitting[:FEW]) if len(fitting) <= FEW else f"{', '.join(fitting[:FEW])}, ..."
            needed = " and ".join(TRAITS[trait] for trait in lacking)
            yield f"{section}.name", f"it needs {needed}, which data.name = {data} does not give; give {cure}"


def enough_classes(config: Config) -> Broken:
    """A published data set has so many classes in each split, some of them counted in four rotations."""
    data = config["data"]
    contents = TABLE["data"][data["name"]].contents
    if contents is None:
        return
    rotated = data.get("rotate", ())
    classes = {split: count * (ROTATIONS if split in rotated else 1) for split, count in contents.classes.items()}
    if (data.get("train_ways") or 0) > classes["train"]:
        yield "data.train_ways", f"split train has {classes['train']} classes; give at most {classes['train']}"
    split = min(classes, key=lambda split: classes[split])
    if largest(data["ways"]) > classes[split]:
        yield "data.ways", f"split {split} has {classes[split]} classes; give at most {classes[split]}"


def enough_images(config: Config) -> Broken:
    """A published data set has so many images of a class, and those of a task are all different."""
    data = config["data"]
    contents = TABLE["data"][data["name"]].contents
    if contents is not None and largest(data["shots"]) + largest(data["queries"]) > contents.images:
        yield (
            "data.shots",
            f"with data.queries = {data['queries']} that is more than the {contents.images} images of a class; "
            f"give shots + queries of at most {contents.images}",
        )


def ranges_rise(config: Config) -> Broken:
    data = config["data"]
    for key in ("ways", "shots", "queries"):
        if isinstance(data.get(key), list) and data[key][0] > data[key][1]:
            yield f"data.{key}", f"a range goes from its least to its greatest; give {data[key][::-1]}"


def largest(size: int | list[int]) -> int:
    """Of a range, as [3, 8], or of a single number."""
    return size if isinstance(size, int) else max(size)


def fractions_add_up(config: Config) -> Broken:
    data = config["data"]
    if "fractions" in data and abs(sum(data["fractions"]) - 1) > 1e-6:
        yield "data.fractions", "the parts of train, val and test must add up to 1; give such as [0.6, 0.2, 0.2]"


def groups_divide_width(config: Config) -> Broken:
    model = config["model"]
    if model.get("norm") == "group" and model["width"] % NORM_GROUPS:
        yield "model.width", f'norm = "group" needs a multiple of {NORM_GROUPS}; give 8, 16, 32, 64, ...'


def heads_divide_width(config: Config) -> Broken:
    model = config["model"]
    if "heads" in model and model["width"] % model["heads"]:
        yield "model.width", f"model.heads = {model['heads']} must divide it; give a multiple of it"


def markov_tables_fit(config: Config) -> Broken:
    data = config["data"]
    if {"symbols", "order"} <= data.keys() and data["symbols"] ** (data["order"] + 1) > MOST_PROBABILITIES:
        most = int(MOST_PROBABILITIES ** (1 / (data["order"] + 1)))
        yield "data.symbols", f"a chain of order {data['order']} needs a table too large; give at most {most}"


def baseline_has_its_settings(config: Config) -> Broken:
    algorithm = config["algorithm"]
    if config["train"]["baseline"] and not {"inner_lr", "steps"} <= algorithm.keys():
        yield "train.baseline", f"it takes inner_lr and steps of the algorithm, and {algorithm['name']} has none"


def minibatches_have_their_examples(config: Config) -> Broken:
    """Tasks of different sizes are padded: of their minibatches some would be padding, and lack classes."""
    data, size = config["data"], config["algorithm"].get("minibatch")
    if size is None:
        return
    if any(isinstance(data.get(key), list) for key in ("ways", "shots")):
        yield "algorithm.minibatch", "it takes tasks of one size, and data.ways or data.shots is a range; give null"
        return
    ways = data.get("ways", 1)
    if size > (most := min(ways, data.get("train_ways") or ways) * data["shots"]):
        yield "algorithm.minibatch", f"a support set has {most} examples; give at most {most}, or null for all"


RULES: list[Callable[[Config], Broken]] = [
    data_gives_what_is_needed,
    enough_classes,
    enough_images,
    ranges_rise,
    fractions_add_up,
    groups_divide_width,
    heads_divide_width,
    markov_tables_fit,
    baseline_has_its_settings,
    minibatches_have_their_examples,
]
