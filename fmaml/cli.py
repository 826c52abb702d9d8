"""The command line. Each command imports what it needs when it runs, so that help and messages appear at once."""

import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .errors import UserError, note

if TYPE_CHECKING:
    from .config.settings import Config

HELP = """\
usage: fmaml COMMAND ...

Model-agnostic meta-learning, with the tasks of a meta-batch in one vectorised call.

commands:
  ls      list experiments, data, models, algorithms and optimizers
  show    print the settings of an experiment, every default filled in
  run     meta-train and meta-test an experiment
  resume  continue a run that was interrupted

examples:
  fmaml run omniglot                       train on Omniglot: 5 classes, 1 example of each
  fmaml run omniglot data.name=glyphs      the same on drawn characters, which need no download
  fmaml run omniglot --dry-run             check everything, train nothing
  fmaml show omniglot > mine.yaml          a file of your own to change
  fmaml run mine.yaml algorithm.steps=5    ... and to run
  fmaml resume runs/omniglot/TIME          continue a run that was interrupted
  fmaml ls model                           list the models and their settings

`fmaml COMMAND --help` says more about a command; `fmaml --version` prints the versions in use.
"""
EXPERIMENT = "a YAML file, the name of an experiment that `fmaml ls` lists, or - for standard input"
OVERRIDES = "settings that replace those of the file, such as algorithm.inner_lr=0.1 or data.name=glyphs"


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake as a UserError: one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError in place of exiting."""
        raise UserError(f"{message}; `{self.prog} --help` shows how it is used")


def main(argv: list[str] | None = None) -> int:
    """Run the command line ``argv``, by default that of the process, and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show ± or → prints a question mark
            stream.reconfigure(errors="replace")
    try:
        code = run_selected_command(sys.argv[1:] if argv is None else argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UserError as error:
        if os.environ.get("FMAML_DEBUG"):
            raise
        for line in str(error).splitlines():
            note(line)
        return error.code
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        note("out of memory; close other programs, or raise the limit on memory (`ulimit -v`)")
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:  # writing the output failed, such as on a full disk; other OSErrors become UserErrors
        if os.environ.get("FMAML_DEBUG"):
            raise
        note(f"{error.filename or 'the output'}: {error.strerror or error}; write it elsewhere")
        return 2


def run_selected_command(argv: list[str]) -> int:
    """Run the command that the first argument names, or print help or versions; return the exit code."""
    first = argv[0] if argv else "--help"
    if first in COMMANDS:
        return COMMANDS[first](argv[1:]) or 0
    if first in ("-h", "--help", "help"):
        print(HELP, end="")
    elif first == "--version":
        print(version_line())
    else:
        raise UserError(f"{first}: unknown command; {suggest_command(first)}`fmaml --help` shows how it is used")
    return 0


def suggest_command(word: str) -> str:
    """The command that was probably meant, or all commands, as part of a message."""
    if word.endswith((".yaml", ".yml")):
        return f"did you mean `fmaml run {word}`? "
    closest = difflib.get_close_matches(word, COMMANDS, 1, 0.5)
    return f"did you mean {closest[0]}? " if closest else f"the commands are {', '.join(COMMANDS)}; "


def run_command(argv: list[str]) -> int:
    """`fmaml run`: train and test an experiment; returns the exit code."""
    parser = new_parser("run", "Meta-train an experiment, then meta-test it on classes it has never seen.")
    add_experiment_arguments(parser)
    add_device_option(parser, "auto", "auto")
    parser.add_argument("--out", metavar="DIR", help="the folder for what the run writes (default: runs/NAME/TIME)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out, if there is one")
    parser.add_argument("--dry-run", action="store_true", help="check everything, then stop before training")
    args = parse_arguments(parser, argv)
    if args.resume and not args.out:
        raise UserError("--resume: given without the folder of a run to continue; name it with --out DIR")

    from .config.load import load

    config = load(args.experiment, args.overrides, note)
    return start_run(config, device=args.device, out=args.out, dry_run=args.dry_run, resume=args.resume)


def resume_command(argv: list[str]) -> int:
    """`fmaml resume`: continue a run from its folder; returns the exit code."""
    parser = new_parser("resume", "Continue a run that was interrupted, from its newest intact checkpoint.")
    parser.add_argument("folder", metavar="DIR", help="the run's folder")
    parser.add_argument("overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDES)
    add_device_option(parser, None, "the one it was on")
    args = parse_arguments(parser, argv)
    folder = Path(args.folder)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: no run to continue: it holds no config.yaml; name a folder that a run has written")

    from .config.load import load
    from .run.store.run_folder import saved_device

    config = load(str(folder / "config.yaml"), args.overrides, note)
    device = args.device or saved_device(folder)
    return start_run(config, device=device, out=args.folder, dry_run=False, resume=True)


def start_run(config: "Config", *, device: str, out: str | None, dry_run: bool, resume: bool) -> int:
    """Check the run's folder, then import torch and run; returns the exit code."""
    from .run.limits import check_address_space, explain_failed_import
    from .run.store.run_folder import check_out_folder

    check_out_folder(out, resume)
    check_address_space()
    with explain_failed_import():
        from .run.run import run  # imports torch, so only after the folder was checked

    return run(config, device=device, out=out, dry_run=dry_run, resume=resume)


def show_command(argv: list[str]) -> None:
    """`fmaml show`: print an experiment's settings as YAML."""
    parser = new_parser("show", "Print an experiment's settings, every default filled in, as a YAML file for `run`.")
    add_experiment_arguments(parser)
    args = parse_arguments(parser, argv)

    from .config.load import load
    from .config.strict_yaml import dump_yaml

    print(dump_yaml(load(args.experiment, args.overrides, note)), end="")


def ls_command(argv: list[str]) -> None:
    """`fmaml ls`: list experiments and names, or the settings of a section."""
    parser = new_parser(
        "ls", "List the experiments that are packaged with fmaml, and the names that a section can take."
    )
    parser.add_argument("section", nargs="?", help="list the settings of this section, such as model, for each name")
    args = parse_arguments(parser, argv)

    from .config.catalogue import describe_section, overview

    print(describe_section(args.section) if args.section else overview())


COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "run": run_command,
    "resume": resume_command,
    "show": show_command,
    "ls": ls_command,
}


def new_parser(name: str, description: str) -> Parser:
    """The parser of the command ``name``, still without arguments."""
    return Parser(f"fmaml {name}", description=description, allow_abbrev=False)


def add_experiment_arguments(parser: Parser) -> None:
    """Add EXPERIMENT and its overrides."""
    parser.add_argument("experiment", metavar="EXPERIMENT", help=EXPERIMENT)
    parser.add_argument("overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDES)


def add_device_option(parser: Parser, default: str | None, default_text: str) -> None:
    """Add --device; ``default_text`` is what its help calls the default."""
    help_text = f"auto, cpu, cuda or cuda:N (default: {default_text})"
    parser.add_argument("--device", type=device_name, default=default, metavar="D", help=help_text)


def parse_arguments(parser: Parser, argv: list[str]) -> argparse.Namespace:
    """The parsed arguments; options may stand before, after and between the overrides.

    Raises UserError for an argument that the command does not take.
    """
    args, unknown = parser.parse_known_intermixed_args(argv)
    for word in unknown:
        closest = difflib.get_close_matches(word.partition("=")[0], parser._option_string_actions, 1)
        if closest:
            raise UserError(f"{word}: unknown option; did you mean {closest[0]}?")
        if word.startswith("-"):
            raise UserError(f"{word}: unknown option; settings are written section.key=value, without dashes")
        parser.error(f"{word}: one argument too many")
    return args


def device_name(word: str) -> str:
    """``word``, if it names a device; else argparse's error, which the parser reports."""
    if word.startswith("mps"):
        raise argparse.ArgumentTypeError(f"{word}: tasks are drawn in float64, which MPS does not support; use cpu")
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", word):
        raise argparse.ArgumentTypeError(f"{word}: must be one of auto, cpu, cuda, cuda:N")
    return word


def version_line() -> str:
    """The versions of fmaml, Python, torch and numpy."""
    from . import __version__

    used = [f"{name} {metadata.version(name)}" for name in ("torch", "numpy")]
    return f"fmaml {__version__} (Python {sys.version.split()[0]}, {', '.join(used)})"
