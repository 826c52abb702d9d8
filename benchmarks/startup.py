"""Time the command line: until it answers, and until its first training step.

    python benchmarks/startup.py [--device cpu] [--json OUT]

Wall time of whole processes, in turn. "first step" is the time until the first row in metrics.jsonl, in a run on the
built-in characters. If training can be compiled, this run is also timed compiled: with an empty cache, then with the
filled one.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Bench, Run, shown

WRONG = "omniglot", "algorithm.inner_lr=fast", "data.way=5"
SHORT = "train.meta_steps=1", "train.meta_batch=4", "train.validate_tasks=4", "eval.tasks=4", "eval.steps=1"
FMAML = sys.executable, "-m", "fmaml"


def main() -> None:
    bench = Bench(__doc__, seconds=240)
    commands = {
        "python -c pass": lambda: wait(sys.executable, "-c", "pass"),
        "import torch": lambda: wait(sys.executable, "-c", "import torch"),
        "fmaml --help": lambda: wait(*FMAML, "--help"),
        "fmaml ls": lambda: wait(*FMAML, "ls"),
        "fmaml show omniglot": lambda: wait(*FMAML, "show", "omniglot"),
        "a wrong setting": lambda: wait(*FMAML, "run", *WRONG, code=2),
    }
    runs: dict[str, Run] = dict(list(commands.items())[2:3]) if bench.quick else commands
    for name, samples in bench.time(runs, seconds=20, most=20).items():
        report(bench, name, samples)
    if bench.quick:
        return
    report(bench, "first step", [first_step(bench) for _ in range(3)])
    if "  compile:" not in subprocess.run([*FMAML, "show", "omniglot"], capture_output=True, text=True).stdout:
        bench.leave_out({"command": "first step, compiled"}, "first step, compiled", "training cannot be compiled")
    elif bench.left() < 150:
        bench.leave_out({"command": "first step, compiled"}, "first step, compiled", "no time left")
    else:
        with tempfile.TemporaryDirectory() as cache:
            for state in ("empty", "filled"):
                seconds = first_step(bench, "train.compile=true", TORCHINDUCTOR_CACHE_DIR=cache)
                report(bench, f"first step, compiled, {state} cache", [seconds])


def report(bench: Bench, name: str, samples: list[float]) -> None:
    bench.add({"command": name, "seconds": {"wall": samples}}, case=name, time=shown(samples))


def wait(*command: str, code: int = 0) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != code:
        raise RuntimeError(f"{' '.join(command)}: exit code {ran.returncode}: {ran.stderr}")


def first_step(bench: Bench, *settings: str, **environment: str) -> float:
    """The seconds until the row of the first meta-step."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "run" / "metrics.jsonl"
        command = [*FMAML, "run", "omniglot", "data.name=glyphs", *SHORT, *settings]
        command += ["--device", str(bench.device), "--out", str(rows.parent)]
        started = time.perf_counter()
        with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL) as process:
            while not (rows.exists() and rows.stat().st_size) and process.poll() is None:
                time.sleep(0.005)
            seconds = time.perf_counter() - started
            process.terminate()  # SIGTERM, so that it saves and ends
        if not (rows.exists() and rows.stat().st_size):
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return seconds


if __name__ == "__main__":
    main()
