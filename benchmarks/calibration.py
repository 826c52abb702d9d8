"""How far can the probabilities of the models that come with fmaml be trusted, and which pictures do they refuse?

python benchmarks/calibration.py [--tasks N] [--write]

The data sets of the models must be here, see docs/datasets.md. Each model is calibrated on its validation tasks and
measured on its test tasks. Uniform noise is refused if it is farther than the limit. --write stores the calibration in
the model files, and writes their cards.
"""

import argparse

import torch

from fmaml.calibration import USUAL_REJECT, Calibration, read_calibration
from fmaml.cli.evaluate import as_experiment, config_of_test
from fmaml.config.build import Experiment, call_by_name
from fmaml.config.settings import EvalSettings
from fmaml.meta_testing.unknown_classes import calibrated
from fmaml.models.find_model import find_model, model_names
from fmaml.models.learner import Learner
from fmaml.models.load import load_for_test
from fmaml.models.model_card import calibration_facts, write_cards
from fmaml.models.model_file import read_model, write_model
from fmaml.types import Theta

CPU = torch.device("cpu")
NOISE = 100  # pictures


def experiment_of(learner: Learner, name: str) -> tuple[Experiment, Theta, EvalSettings]:
    """The model's own experiment, from its metadata."""
    config = config_of_test(learner, name, [])
    source = call_by_name("data", config["data"], seed=config["seed"], device=CPU)
    return *as_experiment(learner, source, config, CPU), EvalSettings(**config["eval"])


def refused_noise(learner: Learner, experiment: Experiment, calibration: Calibration) -> float:
    """The share of uniform noise that is refused, by a network adapted to the first test task."""
    support = experiment.source.sample("test", 0, range(1)).support
    noise = torch.rand(NOISE, *experiment.source.inputs, generator=torch.Generator().manual_seed(0))
    adapted = learner.adapt(support.x[0], support.y[0]).with_calibration(calibration)
    far = adapted.distances(noise) > calibration.limit(USUAL_REJECT)
    return far.double().mean().item()


def main() -> None:
    """Measure each model for classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100, help="validation tasks, and test tasks")
    parser.add_argument("--write", action="store_true", help="store the calibration in the model files")
    args = parser.parse_args()
    for name in model_names():
        learner = load_for_test(name)
        if learner.blueprint.targets != "classes":
            continue
        experiment, theta, settings = experiment_of(learner, name)
        found = calibrated(experiment, theta, EvalSettings(tasks=args.tasks, steps=settings.steps))
        calibration = read_calibration(found)
        assert calibration, "each of these has validation tasks"
        noise = refused_noise(learner, experiment, calibration)
        print(f"{name}: noise refused {noise:.0%}", *calibration_facts(found).items(), sep="\n  ", flush=True)
        if args.write:
            path = find_model(name)
            tensors, metadata = read_model(path)
            write_model(path, tensors, {**(metadata or {}), "calibration": found})
    if args.write:
        write_cards()


if __name__ == "__main__":
    main()
