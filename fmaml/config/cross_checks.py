"""Rules that relate several settings, checked before any data is loaded. Each yields (key, "problem; cure").

A rule refers to settings and to entries of `fmaml.config.registry`, never to a name. So it also applies to code outside
fmaml that has these settings.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from ..setting_types import NORM_GROUPS, TRAITS
from .registry import TABLE, find_entry
from .settings import Config

Violations: TypeAlias = Iterator[tuple[str, str]]
MAX_PROBABILITIES = 2**16  # in the table of a Markov chain
ROTATIONS = 4
MAX_SUGGESTIONS = 3  # names in a message


def data_has_needed_traits(config: Config) -> Violations:
    """The data must have every trait that the model and the algorithm need."""
    data = config["data"]["name"]
    traits = find_entry("data", data).gives
    for section, names in TABLE.items():
        missing = sorted(find_entry(section, config[section]["name"]).needs - traits)
        if missing:
            needed = " and ".join(TRAITS[trait] for trait in missing)
            fitting = [name for name, entry in names.items() if entry.needs <= traits]
            cure = f"give {_alternatives(fitting)}"
            yield f"{section}.name", f"it needs {needed}, which data.name = {data} does not have; {cure}"


def _alternatives(names: list[str]) -> str:
    if len(names) > MAX_SUGGESTIONS:
        return f"{', '.join(names[:MAX_SUGGESTIONS])}, ..."
    return " or ".join(names)


def enough_of_published_data(config: Config) -> Violations:
    """A task takes at most the classes of each split, and at most the images of a class."""
    data = config["data"]
    contents = find_entry("data", data["name"]).contents
    if contents is None:
        return
    rotated_splits = data.get("rotate", ())
    classes = {split: n * (ROTATIONS if split in rotated_splits else 1) for split, n in contents.classes.items()}
    if (data.get("train_ways") or 0) > classes["train"]:
        yield "data.train_ways", f"split train has {classes['train']} classes; give at most {classes['train']}"
    smallest = min(classes, key=lambda split: classes[split])
    if upper_bound(data["ways"]) > classes[smallest]:
        yield "data.ways", f"split {smallest} has {classes[smallest]} classes; give at most {classes[smallest]}"
    for key in ("shots", "train_shots"):
        if data.get(key) and upper_bound(data[key]) + upper_bound(data["queries"]) > contents.images:
            yield (
                f"data.{key}",
                f"with data.queries = {data['queries']} this exceeds the {contents.images} images of a class; "
                f"give {key} + queries of at most {contents.images}",
            )


def ranges_ascend(config: Config) -> Violations:
    """A range of ways, shots or queries is [smallest, largest]."""
    data = config["data"]
    for key in ("ways", "shots", "queries"):
        if isinstance(data.get(key), list) and data[key][0] > data[key][1]:
            yield f"data.{key}", f"a range is [smallest, largest]; give {data[key][::-1]}"


def upper_bound(size: int | list[int]) -> int:
    """The largest value of a range such as [3, 8], or the number itself."""
    return size if isinstance(size, int) else max(size)


def fractions_add_up(config: Config) -> Violations:
    """The fractions of the splits add up to 1."""
    data = config["data"]
    if "fractions" in data and abs(sum(data["fractions"]) - 1) > 1e-6:
        yield "data.fractions", "the fractions of train, val and test must sum to 1; give for example [0.6, 0.2, 0.2]"


def parts_divide_width(config: Config) -> Violations:
    """The width must be a multiple of the number of groups (group norm) and of heads (attention)."""
    model = config["model"]
    if model.get("norm") == "group" and model["width"] % NORM_GROUPS:
        yield "model.width", f'norm = "group" needs a multiple of {NORM_GROUPS}; give 8, 16, 32, 64, ...'
    if "heads" in model and model["width"] % model["heads"]:
        yield "model.width", f"model.heads = {model['heads']} must divide it; give a multiple of it"


def markov_tables_fit(config: Config) -> Violations:
    """The transition table of a Markov chain has symbols ** (order + 1) probabilities."""
    data = config["data"]
    if not {"symbols", "order"} <= data.keys():
        return
    axes = data["order"] + 1
    if data["symbols"] ** axes > MAX_PROBABILITIES:
        most = int(MAX_PROBABILITIES ** (1 / axes))
        yield "data.symbols", f"the table of a chain of order {data['order']} is too large; give at most {most}"


def baseline_has_its_settings(config: Config) -> Violations:
    """The joint baseline fine-tunes by the algorithm's own inner loop, and the first model must be there."""
    algorithm = config["algorithm"]
    joint = config["train"]["baseline"] in (True, "joint")
    if joint and not {"inner_lr", "steps"} <= algorithm.keys():
        reason = f"the baseline uses the algorithm's inner_lr and steps, which {algorithm['name']} does not have"
        yield "train.baseline", f"{reason}; give false or fine_tune"
    if config["train"]["baseline"] == "start" and config["train"]["start"] is None:
        yield "train.baseline", "train.start names no model to compare with; give train.baseline=false"


def minibatch_fits_support_set(config: Config) -> Violations:
    """A minibatch is at most the support set, and needs tasks of one size.

    Tasks of different sizes are padded; minibatches of padded tasks would hold padding and lack classes.
    """
    data = config["data"]
    size = config["algorithm"].get("minibatch")
    if size is None:
        return
    if any(isinstance(data.get(key), list) for key in ("ways", "shots")):
        yield "algorithm.minibatch", "tasks must have one size, but data.ways or data.shots is a range; give null"
        return
    if "shots" not in data:
        lacking = f"it needs support sets of examples, which data.name = {data['name']} lacks"
        yield "algorithm.minibatch", f"{lacking}; give null"
        return
    examples = (data.get("train_ways") or data.get("ways", 1)) * (data.get("train_shots") or data["shots"])
    if size > examples:
        reason = f"a support set in training has {examples} examples"
        yield "algorithm.minibatch", f"{reason}; give at most {examples}, or null for all"


def pretraining_has_its_batches(config: Config) -> Violations:
    """An algorithm that classifies all training classes takes batches of them all; no other algorithm does."""
    batch, classifies = config["data"].get("train_batch"), "smoothing" in config["algorithm"]
    if classifies and batch is None:
        needs = f"{config['algorithm']['name']} needs batches of all training classes"
        if "train_batch" in config["data"]:
            yield "data.train_batch", f"{needs}; give data.train_batch=128"
        else:
            yield "algorithm.name", f"{needs}, which data.name = {config['data']['name']} lacks; give another algorithm"
    if batch is not None and not classifies:
        yield "data.train_batch", "only algorithm.name = pretrain takes batches of all classes; give null"


def chunks_divide_support_set(config: Config) -> Violations:
    """A stream's support set divides into equal chunks."""
    data, chunks = config["data"], config["algorithm"].get("chunks")
    shots = data.get("shots")
    if chunks and "ways" not in data and isinstance(shots, int) and shots % chunks:
        reason = f"data.shots = {shots} examples do not divide into so many equal chunks"
        yield "algorithm.chunks", f"{reason}; give a divisor of {shots}"


def average_is_in_every_process(config: Config) -> Violations:
    """Averaging needs the whole theta in every process, but a sharded optimizer has only a part."""
    if config["train"]["average"] is not None and config["train"]["shard_optimizer"]:
        yield "train.average", "it does not work with train.shard_optimizer = true; give null"


RULES: list[Callable[[Config], Violations]] = [
    data_has_needed_traits,
    enough_of_published_data,
    ranges_ascend,
    fractions_add_up,
    parts_divide_width,
    markov_tables_fit,
    baseline_has_its_settings,
    minibatch_fits_support_set,
    pretraining_has_its_batches,
    chunks_divide_support_set,
    average_is_in_every_process,
]
