"""The table of names: which function each section's `name` picks, and what it needs of the data. Imports no torch.

To add a data source, a model, an algorithm or an optimizer: write its function, whose parameters become the section's
keys, and add one entry here. Data lists the traits of its tasks, a model or an algorithm the traits it needs, all from
`TRAITS`; `fmaml.config.cross_checks` compares the two.
"""

from typing import NamedTuple

from ..data.dataset_facts import DRAWINGS_PER_CLASS, HUNDRED_CLASSES, IMAGES_PER_CLASS, OMNIGLOT_CLASSES
from ..errors import UserError
from .settings import EvalSettings, TrainSettings

TRAITS = {  # a trait of the tasks -> its name in messages
    "numbers": "examples of numbers",  # float, of any shape
    "images": "images",  # float [channels, height, width]
    "signals": "signals",  # float [channels, length]
    "symbols": "passages of symbols",  # int64 [length]
    "classes": "class numbers as targets",  # int64, one an example
    "single_targets": "one target for each example",  # a class number, or a vector
    "episodes": "episodes of a policy",  # the noise of its actions, and a goal
}
NUMBERS = frozenset({"numbers", "single_targets"})
IMAGES = NUMBERS | {"images", "classes"}
SIGNALS = NUMBERS | {"signals", "classes"}
SYMBOLS = frozenset({"symbols"})
EPISODES = frozenset({"numbers", "episodes"})


class Contents(NamedTuple):
    """What a published data set holds, known before any of it is read."""

    classes: dict[str, int]  # split -> number of classes
    images: int  # largest number of images of a class


CHARACTERS = Contents(OMNIGLOT_CLASSES, DRAWINGS_PER_CLASS)
PHOTOGRAPHS = Contents(HUNDRED_CLASSES, IMAGES_PER_CLASS)


class Entry(NamedTuple):
    """One name that a section can take."""

    target: str  # "module:function"; the function's parameters are the section's other keys
    gives: frozenset[str] = frozenset()  # of data: the traits of its tasks
    needs: frozenset[str] = frozenset()  # of a model or an algorithm: the traits that the tasks must have
    contents: Contents | None = None  # of published data


def needing(target: str, *needs: str) -> Entry:
    """An entry that fits only data with all of these traits."""
    return Entry(target, needs=frozenset(needs))


TABLE: dict[str, dict[str, Entry]] = {
    "data": {
        "omniglot": Entry("fmaml.data.sources.omniglot:omniglot", gives=IMAGES, contents=CHARACTERS),
        "glyphs": Entry("fmaml.data.sources.glyphs:glyphs", gives=IMAGES, contents=CHARACTERS),
        "mini_imagenet": Entry("fmaml.data.sources.mini_imagenet:mini_imagenet", gives=IMAGES, contents=PHOTOGRAPHS),
        "cifar_fs": Entry("fmaml.data.sources.cifar_fs:cifar_fs", gives=IMAGES, contents=PHOTOGRAPHS),
        "folder": Entry("fmaml.data.sources.image_folder:folder", gives=IMAGES),
        "udhr": Entry("fmaml.data.sources.udhr:udhr", gives=SYMBOLS),
        "texts": Entry("fmaml.data.sources.texts:texts", gives=SYMBOLS),
        "markov": Entry("fmaml.data.sources.markov:markov", gives=SYMBOLS),
        "sinusoid": Entry("fmaml.data.sources.sinusoid:sinusoid", gives=NUMBERS),
        "navigation": Entry("fmaml.data.sources.navigation:navigation", gives=EPISODES),
        "cheetah": Entry("fmaml.data.sources.cheetah:cheetah", gives=EPISODES),
        "table": Entry("fmaml.data.sources.table:table", gives=NUMBERS),
        "signals": Entry("fmaml.data.sources.signals:signals", gives=SIGNALS),
    },
    "model": {
        "conv4": needing("fmaml.nn.models:conv4", "images"),
        "resnet12": needing("fmaml.nn.resnet12:resnet12", "images"),
        "mlp": needing("fmaml.nn.models:mlp", "numbers"),
        "policy": needing("fmaml.nn.policy:policy", "episodes"),
        "transformer": needing("fmaml.nn.transformer:transformer", "symbols"),
        "timm": needing("fmaml.pretrained.networks:timm", "images"),
        "torchvision": needing("fmaml.pretrained.networks:torchvision", "images"),
        "module": Entry("fmaml.pretrained.networks:module"),
        "causal_lm": needing("fmaml.pretrained.causal_lm:causal_lm", "symbols"),
        "conv1d": needing("fmaml.nn.conv1d:conv1d", "signals"),
    },
    "algorithm": {
        "maml": Entry("fmaml.algorithms.maml:maml"),
        "anil": Entry("fmaml.algorithms.anil:anil"),
        "boil": Entry("fmaml.algorithms.boil:boil"),
        "meta_sgd": Entry("fmaml.algorithms.meta_sgd:meta_sgd"),
        "lslr": Entry("fmaml.algorithms.lslr:lslr"),
        "mamlpp": Entry("fmaml.algorithms.mamlpp:mamlpp"),
        "meta_curvature": Entry("fmaml.algorithms.meta_curvature:meta_curvature"),
        "alfa": Entry("fmaml.algorithms.alfa:alfa"),
        "warpgrad": Entry("fmaml.algorithms.warpgrad:warpgrad"),
        "cavia": Entry("fmaml.algorithms.cavia:cavia"),
        "reptile": Entry("fmaml.algorithms.reptile:reptile"),
        "imaml": Entry("fmaml.algorithms.imaml:imaml"),
        "unicorn_maml": needing("fmaml.algorithms.unicorn_maml:unicorn_maml", "classes"),
        "proto_maml": needing("fmaml.algorithms.proto_maml:proto_maml", "classes"),
        "proto_mamlpp": needing("fmaml.algorithms.proto_mamlpp:proto_mamlpp", "classes"),
        "protonet": needing("fmaml.algorithms.protonet:protonet", "classes"),
        "r2d2": needing("fmaml.algorithms.r2d2:r2d2", "single_targets"),
        "joint": Entry("fmaml.algorithms.joint:joint"),
        "scratch": Entry("fmaml.algorithms.scratch:scratch"),
    },
    "optimizer": {
        "sgd": Entry("fmaml.optim:sgd"),
        "momentum": Entry("fmaml.optim:momentum"),
        "adam": Entry("fmaml.optim:adam"),
        "adamw": Entry("fmaml.optim:adamw"),
    },
}
SETTINGS = {"train": TrainSettings, "eval": EvalSettings}  # sections without a name -> their dataclass


def check_table(table: dict[str, dict[str, Entry]]) -> None:
    """UserError that names an entry whose traits are none, or of data that gives none."""
    for section, names in table.items():
        for name, entry in names.items():
            for field, traits in (("gives", entry.gives), ("needs", entry.needs)):
                if not isinstance(traits, frozenset) or not traits <= TRAITS.keys():
                    raise UserError(
                        f"registry: {section}.{name}: {field} = {traits!r}: must be a frozenset of the traits "
                        f"{', '.join(TRAITS)}, such as NUMBERS, IMAGES, SIGNALS or SYMBOLS"
                    )
            if section == "data" and not entry.gives:
                raise UserError(f"registry: data.{name}: says nothing of its tasks; add gives=NUMBERS or the like")


check_table(TABLE)
