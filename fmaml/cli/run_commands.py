"""`fmaml run` and `fmaml resume`. They check the command line and the folder before importing torch."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Error, note
from .arguments import (
    OVERRIDES,
    add_device_option,
    add_experiment_arguments,
    add_format_option,
    add_jobs_option,
    add_sweep_options,
    new_parser,
    parse_arguments,
)

if TYPE_CHECKING:
    from ..config.settings import Config


def run_command(argv: list[str]) -> int:
    """`fmaml run`: train and test an experiment; return the exit code."""
    parser = new_parser("run", "Meta-train an experiment, then meta-test it on unseen classes.")
    add_experiment_arguments(parser)
    add_device_option(parser, "auto", "auto")
    add_format_option(parser)
    parser.add_argument("--out", metavar="DIR", help="the run's output folder (default: runs/NAME/TIME)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out, if there is one")
    parser.add_argument("--dry-run", action="store_true", help="check everything, then stop before training")
    help_text = "a short run: fewer meta-steps and test tasks, about two minutes for images; downloads nothing"
    parser.add_argument("--quick", action="store_true", help=help_text)
    add_sweep_options(parser)
    args = parse_arguments(parser, argv)
    if args.resume and not args.out:
        raise Error("--resume: the folder of the run to continue is missing; name it with --out DIR")
    if args.seeds or args.repeat or any("," in override for override in args.overrides):
        from ..sweep.command import is_sweep, run_sweep

        if is_sweep(args):
            if args.format:
                raise Error("--format: is for one run; for a run of several use `fmaml resume RUN --format svg`")
            if args.quick:
                raise Error(
                    "--quick: is for one run; for several give train.meta_steps=1000 train.meta_batch=4 eval.tasks=100"
                )
            return run_sweep(args)
    refuse_jobs(args.jobs)

    from ..config.load import load_config
    from ..config.quick import load_quick
    from ..processes.launcher import check_launch, launched, report_once

    here, stand_in = launched(), None
    with report_once(here):
        check_launch(here, args.out)
        if args.quick:
            config, stand_in = load_quick(args.experiment, args.overrides, note)
        else:
            config = load_config(args.experiment, args.overrides, note)
    return start_run(
        config,
        device=args.device,
        out=args.out,
        dry_run=args.dry_run,
        resume=args.resume,
        formats=args.format,
        stand_in=stand_in,
    )


def resume_command(argv: list[str]) -> int:
    """`fmaml resume`: continue a run from its folder; return the exit code."""
    parser = new_parser(
        "resume",
        "Continue an interrupted run from its newest intact checkpoint, or all unfinished runs of one command.",
    )
    parser.add_argument("folder", metavar="DIR", help="the folder of the run, or of the runs")
    parser.add_argument("overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDES)
    add_device_option(parser, None, "the device of the run")
    add_format_option(parser)
    add_jobs_option(parser)
    args = parse_arguments(parser, argv)
    folder = Path(args.folder)
    if (folder / "sweep.json").is_file():
        from ..sweep.command import resume_sweep

        return resume_sweep(folder, args.overrides, args.device, args.jobs or 1)
    refuse_jobs(args.jobs)

    from ..checkpoints.run_folder import saved_device
    from ..config.load import load_config
    from ..processes.launcher import check_launch, launched, report_once

    with report_once(launched()):
        check_launch(launched(), args.folder)
        if not (folder / "config.yaml").is_file():
            raise Error(f"{folder}: no run to continue: it holds no config.yaml; name the folder of a run")
        config = load_config(str(folder / "config.yaml"), args.overrides, note)
    device = args.device or saved_device(folder)
    return start_run(config, device=device, out=args.folder, dry_run=False, resume=True, formats=args.format)


def refuse_jobs(jobs: int | None) -> None:
    """Raise Error if --jobs is given for a single run."""
    if jobs is not None:
        raise Error("--jobs: there is only one run; use it with --seeds, --repeat or several values of a setting")


def start_run(
    config: "Config",
    *,
    device: str,
    out: str | None,
    dry_run: bool,
    resume: bool,
    formats: tuple[str, ...],
    stand_in: "Callable[[], Config] | None" = None,
) -> int:
    """Check the run's folder, then import torch and run; return the exit code.

    If the files of the data are missing, the config from ``stand_in`` runs instead.
    """
    from ..checkpoints.run_folder import check_out_folder
    from ..processes.launcher import launched
    from ..processes.limits import importing_torch

    here = launched()
    resume = resume or here.restarts_allowed > 0  # a rejoining node cannot know whether this is the first start
    if here.rank == 0:  # only this process writes there
        check_out_folder(out, resume)
    with importing_torch():
        from ..training.run_experiment import run  # imports torch, so only after the checks

    return run(config, device=device, out=out, dry_run=dry_run, resume=resume, formats=formats, stand_in=stand_in)
