"""Rules that bind several settings, checked before anything is loaded. Each yields (key, message)."""

from collections.abc import Callable, Iterator
from typing import Any

from ..data.published import CLASS_COUNTS, DRAWINGS_PER_CLASS, IMAGES_PER_CLASS

Broken = Iterator[tuple[str, str]]
IMAGES = {  # of a class, at most
    "omniglot": DRAWINGS_PER_CLASS,
    "glyphs": DRAWINGS_PER_CLASS,
    "mini_imagenet": IMAGES_PER_CLASS,
    "cifar_fs": IMAGES_PER_CLASS,
}
LANGUAGES = {"udhr", "markov"}  # sources of passages of symbols
PROTOTYPES = {"protonet", "proto_maml", "proto_mamlpp"}  # a class is the mean of its examples
LARGEST_TABLE = 2**16  # probabilities of a Markov chain
ROTATIONS = 4
GROUPS = 8  # of `fmaml.nn.models`, which a config check must not import; a test holds the two together


def enough_classes(config: dict[str, Any]) -> Broken:
    data = config["data"]
    if data["name"] not in CLASS_COUNTS:
        return
    classes = {s: n * (ROTATIONS if s in data.get("rotate", ()) else 1) for s, n in CLASS_COUNTS[data["name"]].items()}
    if (data.get("train_ways") or 0) > classes["train"]:
        yield "data.train_ways", f"split train has {classes['train']} classes; give at most {classes['train']}"
    split = min(classes, key=lambda s: classes[s])
    if greatest(data["ways"]) > classes[split]:
        yield "data.ways", f"split {split} has {classes[split]} classes; give at most {classes[split]}"


def enough_images(config: dict[str, Any]) -> Broken:
    data = config["data"]
    most = IMAGES.get(data["name"])
    if most is not None and greatest(data["shots"]) + greatest(data["queries"]) > most:
        what = "images" if most == IMAGES_PER_CLASS else "drawings"
        yield (
            "data.shots",
            f"with data.queries = {data['queries']} that is more than the {most} {what} of a class; "
            f"give shots and queries that add up to {most} at most",
        )


def ranges_rise(config: dict[str, Any]) -> Broken:
    data = config["data"]
    for key in ("ways", "shots", "queries"):
        if isinstance(data.get(key), list) and data[key][0] > data[key][1]:
            yield f"data.{key}", f"a range goes from its least to its greatest; give {data[key][::-1]}"


def greatest(size: int | list[int]) -> int:
    """Of a range, as [3, 8], or of a single number."""
    return size if isinstance(size, int) else max(size)


def split_of_all(config: dict[str, Any]) -> Broken:
    data = config["data"]
    if data["name"] == "folder" and abs(sum(data["fractions"]) - 1) > 1e-6:
        yield "data.fractions", "the parts of train, val and test must add up to 1; give such as [0.6, 0.2, 0.2]"


def groups_divide_width(config: dict[str, Any]) -> Broken:
    model = config["model"]
    if model.get("norm") == "group" and model["width"] % GROUPS:
        yield "model.width", f'norm = "group" needs a multiple of {GROUPS}; give 8, 16, 32, 64, ...'


def heads_divide_width(config: dict[str, Any]) -> Broken:
    model = config["model"]
    if model["name"] == "transformer" and model["width"] % model["heads"]:
        yield "model.width", f"model.heads = {model['heads']} must divide it; give a multiple of it"


def the_model_reads_the_data(config: dict[str, Any]) -> Broken:
    model, data = config["model"]["name"], config["data"]["name"]
    if data in LANGUAGES and model != "transformer":
        yield "model.name", f"data.name = {data} gives passages of symbols; give transformer"
    if model == "transformer" and data not in LANGUAGES:
        yield "model.name", f"it reads passages of symbols, and data.name = {data} gives none; give conv4 or mlp"


def images_for_conv4(config: dict[str, Any]) -> Broken:
    if config["model"]["name"] == "conv4" and config["data"]["name"] == "sinusoid":
        yield "model.name", "it needs images, and data.name = sinusoid gives numbers; give mlp"


def small_enough_tables(config: dict[str, Any]) -> Broken:
    data = config["data"]
    if data["name"] == "markov" and data["symbols"] ** (data["order"] + 1) > LARGEST_TABLE:
        most = {1: 256, 2: 40}[data["order"]]
        yield "data.symbols", f"a chain of order {data['order']} needs a table too large; give at most {most}"


def classes_to_compare(config: dict[str, Any]) -> Broken:
    name, data = config["algorithm"]["name"], config["data"]["name"]
    if (name in PROTOTYPES and data in LANGUAGES | {"sinusoid"}) or (name == "r2d2" and data in LANGUAGES):
        yield "algorithm.name", f"it compares classes, and data.name = {data} has none; give maml"


def baseline_has_its_settings(config: dict[str, Any]) -> Broken:
    algorithm = config["algorithm"]
    if config["train"]["baseline"] and not {"inner_lr", "steps"} <= algorithm.keys():
        yield "train.baseline", f"it takes inner_lr and steps of the algorithm, and {algorithm['name']} has none"


def minibatches_have_their_examples(config: dict[str, Any]) -> Broken:
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


RULES: list[Callable[[dict[str, Any]], Broken]] = [
    enough_classes,
    enough_images,
    ranges_rise,
    split_of_all,
    groups_divide_width,
    heads_divide_width,
    the_model_reads_the_data,
    images_for_conv4,
    small_enough_tables,
    classes_to_compare,
    baseline_has_its_settings,
    minibatches_have_their_examples,
]
