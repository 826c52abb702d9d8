"""Compare accuracy, time and memory of each algorithm, on one problem with one budget.

    python benchmarks/algorithms.py [NAMES ...] [section.key=value ...] [--out DIR] [--seeds 0 1] [--jobs 2]
                                    [--report] [--json OUT] [--picture PNG]

Trains all experiments of `experiments/algorithms/`, or the named ones, as `fmaml run` does, each in DIR/NAME-SEED.
Finished runs are not repeated; interrupted runs continue. Then measures time and memory of one meta-step (`costs.py`)
with each run's number of threads, and prints a table. --picture and --json also write a picture and a JSON file. The
JSON file has each run's settings and environment. --report runs and measures nothing; it reports the existing results.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from costs import REFERENCE, measure
from drawing import Curves, picture

from fmaml.config import packaged
from fmaml.config.strict_yaml import parse_yaml
from fmaml.files.figures import save_figure
from fmaml.processes.environment import environment

SHOWN = (0, 1, 2, 3, 5, 10)  # inner steps with a column
FOLDER = "algorithms/"  # of the experiments


def main() -> int:
    args = arguments()
    overrides = [word for word in args.words if "=" in word]
    known = [name.removeprefix(FOLDER) for name in packaged.experiment_names() if name.startswith(FOLDER)]
    names = [word for word in args.words if "=" not in word] or known
    if unknown := set(names) - set(known):
        sys.exit(f"no such algorithm: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    folders = {(name, seed): args.out / f"{name}-{seed}" for name in names for seed in args.seeds}
    prices = args.out / "costs.json"
    if not args.report:
        threads = max(1, torch.get_num_threads() // args.jobs)
        os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))  # for later processes
        torch.set_num_threads(threads)
        train(folders, overrides, args.jobs)
        measured = {"environment": environment(torch.device("cpu")), "costs": measure(names, overrides)}
        prices.write_text(json.dumps(measured, indent=1) + "\n")
    paths = {key: finished(folder) for key, folder in folders.items()}
    found = {key: json.loads(path.read_text(encoding="utf-8")) for key, path in paths.items() if path.exists()}
    curves = {name: pooled([run for key, run in found.items() if key[0] == name]) for name, _ in found}
    measured = json.loads(prices.read_text()) if prices.exists() else {"environment": {}, "costs": {}}
    costs = measured["costs"]
    print(table(curves, costs))
    if args.picture:
        save_figure(picture(curves, costs), args.picture)
    if args.json:
        write(args.json, folders, found, measured)
    return 0 if len(found) == len(folders) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="NAME or section.key=value")
    parser.add_argument("--out", type=Path, default=Path("runs/algorithms"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the cores")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="such as docs/algorithms.png")
    return parser.parse_intermixed_args()


def finished(folder: Path) -> Path:
    """The last file that a run writes before its pictures."""
    return folder / "results.json"


def train(folders: dict[tuple[str, int], Path], overrides: list[str], jobs: int) -> None:
    """Start `fmaml run` for each folder without results; NAME-SEED.log has its messages."""

    def one(key: tuple[str, int]) -> None:
        folder = folders[key]
        if finished(folder).exists():
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "fmaml", "run", FOLDER + key[0], *overrides, f"seed={key[1]}"]
        with folder.with_suffix(".log").open("a") as log:
            command += ["--out", str(folder), "--resume"]
            ran = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        print(f"{folder.name}: {'done' if ran.returncode == 0 else f'failed, see {log.name}'}", file=sys.stderr)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, folders))


def pooled(runs: list[dict[str, Any]]) -> list[tuple[float, float | None]]:
    """Transductive accuracy and half the 95 % interval over the tasks of all seeds, after 0, 1, .. inner steps."""
    columns = [next(column for label, column in run["results"].items() if "inductive" not in label) for run in runs]
    return [
        (sum(s["mean"] for s in scores) / len(runs), math.hypot(*(s["ci95"] for s in scores)) / len(runs))
        for scores in zip(*columns, strict=True)
    ]


def table(curves: Curves, costs: dict[str, Any]) -> str:
    """The table in Markdown, best first; time and memory are multiples of MAML's."""
    lines = [
        f"| algorithm | {' | '.join(f'{k}' for k in SHOWN)} | trained with | time | ms a meta-step | memory |",
        "|---|" + "---|" * (len(SHOWN) + 4),
    ]
    for name, curve in sorted(curves.items(), key=lambda item: -item[1][-1][0]):
        scores = [f"{100 * curve[k][0]:.2f} ± {100 * (curve[k][1] or 0):.2f}" if k < len(curve) else "" for k in SHOWN]
        cost = ["", "", "", ""]
        if name in costs:
            ours = costs[name]
            cost = [str(ours["steps"]), f"{ours['time']:.2f}", f"{ours['milliseconds']:.0f}", f"{ours['memory']:.2f}"]
        lines.append(f"| `{name}` | {' | '.join([*scores, *cost])} |")
    note = (
        "Accuracy in % by inner step, ± a 95 % interval over tasks; inner steps in training; time and memory of a "
        f"meta-step as multiples of {REFERENCE}'s."
    )
    return "\n".join([*lines, "", note])


def write(path: Path, folders: dict[tuple[str, int], Path], found: dict, measured: dict[str, Any]) -> None:
    runs = []
    for (name, seed), run in found.items():
        saved = folders[name, seed] / "config.yaml"
        about = {"config": parse_yaml(saved.read_text(encoding="utf-8"), str(saved))}
        about["environment"] = json.loads((folders[name, seed] / "environment.json").read_text(encoding="utf-8"))
        runs.append({"algorithm": name, "run_seed": seed, **about, **run})
    content = {**measured, "runs": runs}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
