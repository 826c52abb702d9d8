"""Search both learning rates with Optuna: `python examples/optuna_search.py sinusoid train.meta_steps=500 --trials 20`.

Each trial is an ordinary run, judged on validation tasks, never on test tasks. The same command adds trials to `--out`.
"""

import argparse
from pathlib import Path

import optuna

from fmaml.config.load import load_config
from fmaml.errors import RunFailed
from fmaml.sweep.results import results_of
from fmaml.training.run_experiment import run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Search algorithm.inner_lr and optimizer.lr of an experiment.")
    parser.add_argument("words", nargs="+", metavar="WORD", help="EXPERIMENT section.key=value ..")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/optuna"))
    args = parser.parse_intermixed_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)

    def objective(trial: optuna.Trial) -> float:
        ranges = {"algorithm.inner_lr": (1e-3, 1.0), "optimizer.lr": (1e-4, 1e-1)}
        rates = [f"{key}={trial.suggest_float(key, *ends, log=True)}" for key, ends in ranges.items()]
        folder = args.out / f"trial-{trial.number}"
        if code := run(load_config(args.words[0], [*args.words[1:], *rates, "eval.tasks=1"]), out=str(folder)):
            raise SystemExit(code)  # stopped by a signal
        results = results_of(folder)
        if results["validation"] is None:
            raise RunFailed(f"{folder}: no validation score is finite")
        return (-1 if results["more_is_better"] else 1) * results["validation"]["mean"]

    study = optuna.create_study(storage=f"sqlite:///{args.out}/study.db", study_name="fmaml", load_if_exists=True)
    study.optimize(objective, n_trials=args.trials, catch=(RunFailed,))  # a run that diverges is a failed trial
    if not any(trial.values for trial in study.trials):
        raise SystemExit("no trial has a finite score; give smaller rates")
    print("the best:", " ".join(f"{key}={value:.4g}" for key, value in study.best_params.items()))


if __name__ == "__main__":
    main()
