"""`fmaml run` with several seeds or values, and `fmaml resume` of such a sweep. Only a dry run imports torch."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..checkpoints.run_folder import check_out_folder, describe_os_error, run_folder
from ..errors import Error, RunFailed, Stopped, exit_code, note
from ..files.console import CleanConsole
from ..files.plain_text import counted
from ..files.standard_output import pipe_safe_stdout
from ..processes.launcher import launched, report_once
from ..processes.limits import importing_torch
from .plan import plan, values_of
from .results import read_results, summarise
from .show import SweepProgress, print_sweep, say
from .state import (
    FAILED,
    SWEEP_FILE,
    UNFINISHED,
    Sweep,
    SweepRun,
    check_sweep_folder,
    merged,
    read_sweep,
    wait_until_free,
    write_sweep,
)
from .workers import run_all


def is_sweep(args: argparse.Namespace) -> bool:
    """Whether the arguments of `fmaml run` ask for more than one run."""
    return bool(args.seeds) or args.repeat is not None or any(len(values_of(text)[1]) > 1 for text in args.overrides)


def run_sweep(args: argparse.Namespace) -> int:
    """Run everything that the arguments of `fmaml run` ask for; return the exit code."""
    refuse_processes()
    if args.seeds and args.repeat is not None:
        raise Error("--repeat: given together with --seeds; leave out one of them")
    runs = plan(args.experiment, args.overrides, note, seeds=args.seeds or (), repeat=args.repeat)
    check_out_folder(args.out, args.resume, check_sweep_folder)
    if args.dry_run:
        return dry_run(runs, args.device)
    return run_in_folder(Sweep(runs[0].config["name"], args.device, runs), args.out, args.jobs or 1, args.resume)


def resume_sweep(folder: Path, overrides: Sequence[str], device: str | None, jobs: int) -> int:
    """Continue the sweep in a folder; return the exit code."""
    refuse_processes()
    if overrides:
        raise Error(
            f"{folder}: holds a sweep with fixed settings; give {overrides[0]} to one of its runs: "
            f"`fmaml resume {folder}/RUN {overrides[0]}`"
        )
    check_out_folder(str(folder), True, check_sweep_folder)
    saved = read_sweep(folder)
    return run_in_folder(saved._replace(device=device or saved.device), str(folder), jobs, resume=True)


def refuse_processes() -> None:
    """Raise Error under a launcher of many processes."""
    here = launched()
    with report_once(here):
        if here.world_size > 1:
            raise Error("several runs do not work under torchrun; start them without it, with --jobs N for N at a time")


def dry_run(runs: list[SweepRun], device: str) -> int:
    """Check every run as `fmaml run --dry-run` does, and report each problem with its run; return the exit code."""
    with importing_torch():
        from ..training.run_experiment import run as run_once

    code = 0
    for number, run in enumerate(runs, 1):
        print(f"{number}/{len(runs)}  {run.folder}", flush=True)
        try:
            run_once(run.config, device=device, dry_run=True)
        except Error as error:
            code = code or exit_code(error)
            for line in str(error).splitlines():
                note(f"{run.folder}: {line}")
    return code


def run_in_folder(asked: Sweep, out: str | None, jobs: int, resume: bool) -> int:
    """Run the unfinished runs of the sweep, then print the table; return the exit code."""
    console = CleanConsole(file=pipe_safe_stdout())
    with run_folder(out, asked.name, resume, check_sweep_folder) as folder:
        sweep = merged(read_sweep(folder), asked, folder) if (folder / SWEEP_FILE).exists() else asked
        try:
            return run_and_report(console, folder, sweep, jobs)
        except Stopped as stop:
            say(console, f"stopped; `fmaml resume {folder}` continues")
            return exit_code(stop)
        except OSError as error:
            raise RunFailed(f"{error.filename or folder}: {describe_os_error(error, folder)}") from error


def run_and_report(console: Console, folder: Path, sweep: Sweep, jobs: int) -> int:
    """Run the unfinished runs, update sweep.json, and report on all; 1 if a run failed or was stopped, else 0."""
    keep(folder, sweep)
    runs, left = len(sweep.runs), sweep.unfinished()
    amount = [counted(runs, "run")]
    amount += [f"{runs - len(left)} of them already finished"] if len(left) < runs else []
    amount += [f"{jobs} at a time"] if jobs > 1 else []
    say(console, f"{sweep.name}: {', '.join(amount)}, in {folder}")
    for run in left:
        wait_until_free(folder / run.folder, note)
    with SweepProgress(console, folder, len(left)) as shown:
        run_all(sweep, folder, jobs, shown, lambda: keep(folder, sweep))
    print_sweep(console, sweep, summarise(sweep))
    say(console, f"everything is in {folder}")
    states = [run.state for run in sweep.runs]
    counts = {"failed": states.count(FAILED), "stopped": states.count(UNFINISHED)}
    undone = " and ".join(f"{count} {word}" for word, count in counts.items() if count)
    if undone:
        say(console, f"{undone}; `fmaml resume {folder}` continues them")
    return int(bool(undone))


def keep(folder: Path, sweep: Sweep) -> None:
    """Read the results of newly finished runs, and write sweep.json."""
    for run in sweep.runs:
        read_results(folder, run)
    write_sweep(folder, sweep, summarise(sweep))
