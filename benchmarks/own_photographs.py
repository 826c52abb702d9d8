"""Compare shipped models with simple methods on a folder of photographs: 5-way 5-shot, each query alone.

    python benchmarks/own_photographs.py FOLDER MODEL [MODEL ...] [--tasks 100] [--json OUT]

FOLDER holds a folder of pictures for each class. A MODEL is a name of `fmaml ls models`, or the folder of a run, such
as one of `fmaml run photos data.root=OTHER_CLASSES`. Every method learns and names the same pictures.
"""

import argparse
import json
import math
from pathlib import Path

import torch

import fmaml
from fmaml.data.images.label_table import read_labelled
from fmaml.intervals import t95
from fmaml.models.cross_validation import by_linear_model, by_nearest
from fmaml.models.user_images import to_inputs
from fmaml.processes.environment import environment

WAYS, SHOTS, QUERIES = 5, 5, 3
SIMPLE = {"nearest example, by pixels": by_nearest, "linear model of colours and edges": by_linear_model}


def main() -> None:
    """Print a line for each method, and write all scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    classes = {
        name: files for name, files in read_labelled(args.folder).classes.items() if len(files) >= SHOTS + QUERIES
    }
    print(f"{args.folder.name}: {len(classes)} classes, {args.tasks} tasks")
    rows = []
    for model in args.models:
        learner = fmaml.load(model)
        pictures = {name: to_inputs(files, learner.shape) for name, files in classes.items()}
        methods = {model: learner_method(learner)} | (SIMPLE if model == args.models[0] else {})
        for method, name in methods.items():
            scores = [accuracy(name, pictures, seed) for seed in range(args.tasks)]
            mean = sum(scores) / len(scores)
            ci95 = t95(len(scores) - 1) * torch.tensor(scores).std().item() / math.sqrt(len(scores))
            print(f"{method:<36} {mean:6.1%} ± {ci95:.1%}", flush=True)
            rows.append({"method": method, "mean": mean, "ci95": ci95, "scores": scores})
    if args.json:
        about = {"folder": args.folder.name, "classes": len(classes), "ways": WAYS, "shots": SHOTS, "queries": QUERIES}
        args.json.write_text(
            json.dumps({**about, "environment": environment(torch.device("cpu")), "rows": rows}, indent=1) + "\n"
        )


def learner_method(learner: fmaml.Learner):
    """The model as a method of `fmaml.models.cross_validation`."""

    def name(known: fmaml.Batch, x: torch.Tensor) -> torch.Tensor:
        return learner.adapt(known.x, known.y).outputs(x).argmax(-1)

    return name


def accuracy(name, pictures: dict[str, torch.Tensor], seed: int) -> float:
    """The accuracy of a method on the task of this number."""
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pictures), generator=rng)[:WAYS].tolist()
    chosen = [list(pictures.values())[i] for i in order]
    drawn = [x[torch.randperm(len(x), generator=rng)[: SHOTS + QUERIES]] for x in chosen]
    support = fmaml.Batch(torch.cat([x[:SHOTS] for x in drawn]), torch.arange(WAYS).repeat_interleave(SHOTS))
    truth = torch.arange(WAYS).repeat_interleave(QUERIES)
    return (name(support, torch.cat([x[SHOTS:] for x in drawn])) == truth).double().mean().item()


if __name__ == "__main__":
    main()
