"""The function that a section's `name` picks, and its requirements on the data. Imports no torch and no outside code.

A name is one of these:

- a name in the table below,
- a name from an installed package's entry point in the group `fmaml.data`, `fmaml.model`, `fmaml.algorithm` or
  `fmaml.optimizer`,
- ``package.module:function``, in the current folder or installed.

The function's parameters are the section's other keys. Data lists the traits of its tasks; a model or an algorithm
lists the traits that it needs. Both stand in the table, or in the decorators `fmaml.setting_types.gives` and `needs`.
`fmaml.config.cross_checks` compares them.
"""

import re
from functools import cache
from importlib import metadata
from typing import NamedTuple

from ..data.dataset_facts import CHARACTER_SIZE, DRAWINGS_PER_CLASS, HUNDRED_CLASSES, IMAGES_PER_CLASS, OMNIGLOT_CLASSES
from ..errors import Error
from ..setting_types import TRAITS
from .settings import Config, EvalSettings, TrainSettings
from .source_text import declared_traits, find_function

NUMBERS = frozenset({"numbers", "single_targets"})
IMAGES = NUMBERS | {"images", "classes"}
SIGNALS = NUMBERS | {"signals", "classes"}
SYMBOLS = frozenset({"symbols"})


class Contents(NamedTuple):
    """The sizes of a published data set, known before it is read."""

    classes: dict[str, int]  # split -> number of classes
    images: int  # largest number of images of a class
    numbers: int  # in one image: channels x height x width


CHARACTERS = Contents(OMNIGLOT_CLASSES, DRAWINGS_PER_CLASS, CHARACTER_SIZE**2)
MINI_IMAGENET = Contents(HUNDRED_CLASSES, IMAGES_PER_CLASS, 3 * 84**2)
CIFAR_FS = Contents(HUNDRED_CLASSES, IMAGES_PER_CLASS, 3 * 32**2)


class Entry(NamedTuple):
    """One name that a section can take."""

    target: str  # "module:function"; the function's parameters are the section's other keys
    gives: frozenset[str] = frozenset()  # of data: the traits of its tasks
    needs: frozenset[str] = frozenset()  # of a model or an algorithm: the traits that the tasks must have
    contents: Contents | None = None  # of published data


def needing(target: str, *needs: str) -> Entry:
    """An entry that needs data with all of these traits."""
    return Entry(target, needs=frozenset(needs))


TABLE: dict[str, dict[str, Entry]] = {
    "data": {
        "omniglot": Entry("fmaml.data.sources.omniglot:omniglot", gives=IMAGES, contents=CHARACTERS),
        "glyphs": Entry("fmaml.data.sources.glyphs:glyphs", gives=IMAGES, contents=CHARACTERS),
        "mini_imagenet": Entry("fmaml.data.sources.mini_imagenet:mini_imagenet", gives=IMAGES, contents=MINI_IMAGENET),
        "cifar_fs": Entry("fmaml.data.sources.cifar_fs:cifar_fs", gives=IMAGES, contents=CIFAR_FS),
        "folder": Entry("fmaml.data.sources.image_folder:folder", gives=IMAGES),
        "udhr": Entry("fmaml.data.sources.udhr:udhr", gives=SYMBOLS),
        "texts": Entry("fmaml.data.sources.texts:texts", gives=SYMBOLS),
        "markov": Entry("fmaml.data.sources.markov:markov", gives=SYMBOLS),
        "sinusoid": Entry("fmaml.data.sources.sinusoid:sinusoid", gives=NUMBERS),
        "table": Entry("fmaml.data.sources.table:table", gives=NUMBERS),
        "signals": Entry("fmaml.data.sources.signals:signals", gives=SIGNALS),
        "features": Entry("fmaml.data.sources.features:feature_arrays", gives=NUMBERS | {"classes"}),
    },
    "model": {
        "conv4": needing("fmaml.nn.conv4:conv4", "images"),
        "resnet12": needing("fmaml.nn.resnet12:resnet12", "images"),
        "mlp": needing("fmaml.nn.mlp:mlp", "numbers"),
        "transformer": needing("fmaml.nn.transformer:transformer", "symbols"),
        "timm": needing("fmaml.modules.pretrained_networks:timm", "images"),
        "torchvision": needing("fmaml.modules.pretrained_networks:torchvision", "images"),
        "module": Entry("fmaml.modules.pretrained_networks:module"),
        "causal_lm": needing("fmaml.modules.causal_lm:causal_lm", "symbols"),
        "conv1d": needing("fmaml.nn.conv1d:conv1d", "signals"),
    },
    "algorithm": {
        "maml": Entry("fmaml.algorithms.maml:maml"),
        "anil": Entry("fmaml.algorithms.maml:anil"),
        "boil": Entry("fmaml.algorithms.maml:boil"),
        "meta_sgd": Entry("fmaml.algorithms.meta_sgd:meta_sgd"),
        "lslr": Entry("fmaml.algorithms.lslr:lslr"),
        "mamlpp": Entry("fmaml.algorithms.mamlpp:mamlpp"),
        "meta_curvature": Entry("fmaml.algorithms.meta_curvature:meta_curvature"),
        "alfa": Entry("fmaml.algorithms.alfa:alfa"),
        "warpgrad": Entry("fmaml.algorithms.warpgrad:warpgrad"),
        "cavia": Entry("fmaml.algorithms.cavia:cavia"),
        "reptile": Entry("fmaml.algorithms.reptile:reptile"),
        "imaml": Entry("fmaml.algorithms.imaml:imaml"),
        "streamed": Entry("fmaml.algorithms.streamed:streamed"),
        "unicorn_maml": needing("fmaml.algorithms.unicorn_maml:unicorn_maml", "classes"),
        "proto_maml": needing("fmaml.algorithms.proto_maml:proto_maml", "classes"),
        "proto_mamlpp": needing("fmaml.algorithms.proto_mamlpp:proto_mamlpp", "classes"),
        "protonet": needing("fmaml.algorithms.protonet:protonet", "classes"),
        "pretrain": needing("fmaml.algorithms.pretrain:pretrain", "classes"),
        "r2d2": needing("fmaml.algorithms.r2d2:r2d2", "single_targets"),
        "joint": Entry("fmaml.algorithms.joint:joint"),
        "scratch": Entry("fmaml.algorithms.scratch:scratch"),
    },
    "optimizer": {
        "sgd": Entry("fmaml.optim.optimizers:sgd"),
        "momentum": Entry("fmaml.optim.optimizers:momentum"),
        "adam": Entry("fmaml.optim.optimizers:adam"),
        "adamw": Entry("fmaml.optim.optimizers:adamw"),
    },
}
SETTINGS = {"train": TrainSettings, "eval": EvalSettings}  # sections without a name -> their dataclass


def find_entry(section: str, name: object) -> Entry:
    """The entry of a name in a section; Error if there is no such function."""
    if isinstance(name, str) and name in TABLE[section]:
        return TABLE[section][name]
    target = own_target(section, name)
    if target is None:
        raise Error(f"must be one of {', '.join(known_names(section))}, or package.module:function of your own")
    function = find_function(target)
    entry = Entry(target, declared_traits(function, "gives"), declared_traits(function, "needs"))
    if section == "data" and not entry.gives:
        raise Error(
            f"{target} declares no traits of its tasks; write @gives(...) of fmaml.setting_types above the function, "
            f"with some of {', '.join(TRAITS)}"
        )
    return entry


def own_target(section: str, name: object) -> str | None:
    """``module:function`` of a name outside fmaml; None if the name is fmaml's or unknown."""
    if not isinstance(name, str) or name in TABLE[section]:
        return None
    return name if re.fullmatch(r"\w+(\.\w+)*:\w+", name) else entry_points(section).get(name)


@cache
def entry_points(section: str) -> dict[str, str]:
    """Name -> ``module:function`` of the entry points in installed packages for the section, sorted."""
    found = sorted(metadata.entry_points(group=f"fmaml.{section}"), key=lambda point: point.name)
    return {point.name: f"{point.module}:{point.attr}" for point in found if point.name not in TABLE[section]}


def known_names(section: str) -> list[str]:
    """The names in the table, then those from installed packages."""
    return [*TABLE[section], *entry_points(section)]


def own_code(config: Config, section: str) -> str | None:
    """The function outside fmaml that a section names, or None. The section need not be valid."""
    values = config.get(section)
    if not isinstance(values, dict):
        return None
    if section == "model" and values.get("name") == "module":
        return str(values.get("module"))
    return own_target(section, values.get("name"))
