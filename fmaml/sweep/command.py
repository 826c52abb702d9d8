"""`fmaml run` with several seeds or values, and `fmaml resume` of such a sweep. Imports no torch but in a dry run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..checkpoints.run_folder import describe_os_error
from ..errors import RunFailed, Stopped, UserError, note
from ..files.standard_output import lasting_stdout
from ..processes.launcher import launched, told_once
from ..processes.limits import importing_torch
from .expand import PlannedRun, Seeds, expand
from .folder import check_sweep_folder, sweep_folder, wait_until_free
from .outcomes import measured, row_of, summarise
from .progress import SweepProgress
from .record import FAILED, FINISHED, SWEEP_FILE, UNFINISHED, Outcome, Sweep, merged, new_sweep, read_sweep, write_sweep
from .running import run_rest
from .table import print_sweep, say
from .values import values_of


def is_sweep(args: argparse.Namespace) -> bool:
    """Whether the arguments of `fmaml run` ask for more than one run."""
    return bool(args.seeds) or args.repeat is not None or any(values_of(override) for override in args.overrides)


def run_sweep(args: argparse.Namespace) -> int:
    """All runs that the arguments of `fmaml run` ask for; returns the exit code."""
    refuse_processes()
    if args.seeds and args.repeat is not None:
        raise UserError("--repeat: given beside --seeds; leave out one of them")
    runs = expand(args.experiment, args.overrides, Seeds(args.seeds or (), args.repeat), note)
    asked = new_sweep(runs, args.device)
    check_sweep_folder(args.out, args.resume)
    if args.dry_run:
        return dry_run(runs, args.device)
    return run_in_folder(asked, args.out, args.jobs or 1, args.resume)


def resume_sweep(folder: Path, overrides: Sequence[str], device: str | None, jobs: int) -> int:
    """Go on with the sweep in a folder; returns the exit code."""
    refuse_processes()
    if overrides:
        raise UserError(
            f"{folder}: holds a sweep, whose settings stay; give {overrides[0]} to one of its runs: "
            f"`fmaml resume {folder}/RUN {overrides[0]}`"
        )
    check_sweep_folder(str(folder), resume=True)
    saved = read_sweep(folder)
    return run_in_folder(saved._replace(device=device or saved.device), str(folder), jobs, resume=True)


def refuse_processes() -> None:
    """UserError under a launcher of many processes."""
    here = launched()
    with told_once(here):
        if here.world_size > 1:
            raise UserError("several runs under torchrun: start them without it, with --jobs N for N at a time")


def dry_run(runs: list[PlannedRun], device: str) -> int:
    """Check every run as `fmaml run --dry-run` does, and say what is wrong with which; returns the exit code."""
    with importing_torch():
        from ..training.run_experiment import run as run_once

    code = 0
    for number, planned in enumerate(runs, 1):
        print(f"{number}/{len(runs)}  {planned.folder}", flush=True)
        try:
            run_once(planned.config, device=device, dry_run=True)
        except UserError as error:
            code = code or error.code
            for line in str(error).splitlines():
                note(f"{planned.folder}: {line}")
    return code


def run_in_folder(sweep: Sweep, out: str | None, jobs: int, resume: bool) -> int:
    """Run what is not done of the sweep, then print the table; returns the exit code."""
    console = Console(file=lasting_stdout())
    with sweep_folder(out, sweep.name, resume) as folder:
        if (folder / SWEEP_FILE).exists():
            check_sweep_folder_is(resume, folder)
            sweep = merged(read_sweep(folder), sweep, folder)
        try:
            return run_and_report(console, folder, sweep, jobs)
        except Stopped as stop:
            say(console, f"stopped; `fmaml resume {folder}` continues")
            return stop.code
        except OSError as error:
            raise RunFailed(f"{error.filename or folder}: {describe_os_error(error, folder)}") from error


def check_sweep_folder_is(resume: bool, folder: Path) -> None:
    """UserError if another sweep has begun in the folder since it was looked at."""
    if not resume:
        raise UserError(f"--out {folder}: holds a sweep already; add --resume to continue it, or name a new folder")


def run_and_report(console: Console, folder: Path, sweep: Sweep, jobs: int) -> int:
    """Run the rest, keeping sweep.json, and report on all; 1 if a run failed or was stopped, else 0."""
    rows = measured(folder, sweep)

    def keep(run: PlannedRun, outcome: Outcome) -> Outcome:
        if outcome.state == FINISHED:
            try:
                rows[run.folder] = row_of(folder / run.folder)
            except UserError as error:
                outcome = Outcome(FAILED, 1, str(error))
        sweep.outcomes[run.folder] = outcome
        write_sweep(folder, sweep, rows, summarise(sweep, rows))
        return outcome

    write_sweep(folder, sweep, rows, summarise(sweep, rows))
    left = [run for run in sweep.runs if sweep.outcomes[run.folder].state != FINISHED]
    say(console, f"{sweep.name}: {describe_amount(len(sweep.runs), len(left), jobs)}, in {folder}")
    wait_until_free([folder / run.folder for run in left], note)
    with SweepProgress(console, folder, len(left), rows) as shown:
        run_rest(sweep, folder, jobs, shown, keep)
    print_sweep(console, sweep, summarise(sweep, rows))
    say(console, f"everything is in {folder}")
    return report_unfinished(console, folder, sweep)


def describe_amount(runs: int, left: int, jobs: int) -> str:
    """How many runs there are, in words."""
    done = f", {runs - left} of them finished before" if left < runs else ""
    return f"{runs} run{'' if runs == 1 else 's'}{done}" + (f", {jobs} at a time" if jobs > 1 else "")


def report_unfinished(console: Console, folder: Path, sweep: Sweep) -> int:
    """Say how many runs failed or were stopped one by one; 1 if any did, else 0."""
    states = [outcome.state for outcome in sweep.outcomes.values()]
    counts = {"failed": states.count(FAILED), "stopped": states.count(UNFINISHED)}
    if any(counts.values()):
        what = " and ".join(f"{count} {word}" for word, count in counts.items() if count)
        say(console, f"{what}; `fmaml resume {folder}` runs what is not finished")
    return int(any(counts.values()))
