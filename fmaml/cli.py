"""The command line. Each command imports what it needs, so that help and messages come at once."""

import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from .errors import UserError, note

HELP = """\
usage: fmaml COMMAND ...

Model-agnostic meta-learning, with the tasks of a meta-batch in one vectorised call.

commands:
  ls     what there is: experiments, data, models, algorithms, optimizers
  show   the settings of an experiment, every default filled in
  run    meta-train and meta-test an experiment
  resume go on with a run that was interrupted

examples:
  fmaml run omniglot                       train on Omniglot: 5 classes, 1 example of each
  fmaml run omniglot data.name=glyphs      the same on drawn characters, which need no download
  fmaml run omniglot --dry-run             check everything, train nothing
  fmaml show omniglot > mine.yaml          a file of your own to change
  fmaml run mine.yaml algorithm.steps=5    ... and to run
  fmaml resume runs/omniglot/TIME          go on with a run that was interrupted
  fmaml ls model                           which models there are, and their settings

`fmaml COMMAND --help` says more about a command; `fmaml --version` prints the versions in use.
"""
EXPERIMENT = "a YAML file, the name of an experiment that `fmaml ls` lists, or - for standard input"
OVERRIDES = "settings that replace those of the file, such as algorithm.inner_lr=0.1 or data.name=glyphs"


class Parser(argparse.ArgumentParser):
    """Reports a slip as every other error is reported: one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` shows how it is used")


def main(argv: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without ± and → gets a question mark, not a traceback
            stream.reconfigure(errors="replace")
    try:
        code = dispatch(sys.argv[1:] if argv is None else argv)
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
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:  # of the output itself, such as a full disk; all others have their own message
        if os.environ.get("FMAML_DEBUG"):
            raise
        note(f"{error.filename or 'the output'}: {error.strerror or error}; write it elsewhere")
        return 2


def dispatch(argv: list[str]) -> int:
    first, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if first in COMMANDS:
        return COMMANDS[first](rest) or 0
    if first in ("-h", "--help", "help"):
        print(HELP, end="")
    elif first == "--version":
        print(versions())
    else:
        raise UserError(f"{first}: unknown command; {suggest(first)}`fmaml --help` shows how it is used")
    return 0


def suggest(word: str) -> str:
    if word.endswith((".yaml", ".yml")):
        return f"did you mean `fmaml run {word}`? "
    near = difflib.get_close_matches(word, COMMANDS, 1, 0.5)
    return f"did you mean {near[0]}? " if near else f"the commands are {', '.join(COMMANDS)}; "


def run_command(argv: list[str]) -> int | None:
    parser = command("run", "Meta-train an experiment, then meta-test it on classes it has never seen.")
    takes_experiment(parser)
    takes_device(parser, "auto", "auto")
    parser.add_argument("--out", metavar="DIR", help="the folder for what the run writes (default: runs/NAME/TIME)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, if there is one")
    parser.add_argument("--dry-run", action="store_true", help="check everything, then stop before training")
    args = parse(parser, argv)
    if args.resume and not args.out:
        raise UserError("--resume: go on with which run? Name its folder by --out DIR")

    from .config.load import load

    config = load(args.experiment, args.overrides, note)
    return start(config, device=args.device, out=args.out, dry_run=args.dry_run, resume=args.resume)


def resume_command(argv: list[str]) -> int | None:
    parser = command("resume", "Go on with a run that was interrupted, from its newest sound checkpoint.")
    parser.add_argument("folder", metavar="DIR", help="the run's folder")
    parser.add_argument("overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDES)
    takes_device(parser, None, "the one it was on")
    args = parse(parser, argv)
    folder = Path(args.folder)
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder}: no run to go on with: it holds no config.yaml; name a folder that a run has written"
        )

    from .config.load import load
    from .run.store.run_folder import saved_device

    config = load(str(folder / "config.yaml"), args.overrides, note)
    return start(config, device=args.device or saved_device(folder), out=args.folder, dry_run=False, resume=True)


def start(config: dict[str, Any], *, out: str | None, resume: bool, **options: Any) -> int:
    from .run.store.run_folder import check_early

    check_early(out, resume)

    from .run.run import run  # only now: it imports torch

    return run(config, out=out, resume=resume, **options)


def show_command(argv: list[str]) -> None:
    parser = command("show", "Print an experiment's settings, every default filled in, as a YAML file for `run`.")
    takes_experiment(parser)
    args = parse(parser, argv)

    from .config.load import load
    from .config.strict_yaml import dump_yaml

    print(dump_yaml(load(args.experiment, args.overrides, note)), end="")


def ls_command(argv: list[str]) -> None:
    parser = command("ls", "List the experiments that came with fmaml, and the names that a section can take.")
    parser.add_argument("section", nargs="?", help="list the settings of this section, such as model, for each name")
    args = parse(parser, argv)

    from .config.catalogue import overview, section

    print(section(args.section) if args.section else overview())


COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "run": run_command,
    "resume": resume_command,
    "show": show_command,
    "ls": ls_command,
}


def command(name: str, description: str) -> Parser:
    return Parser(f"fmaml {name}", description=description, allow_abbrev=False)


def takes_experiment(parser: Parser) -> None:
    parser.add_argument("experiment", metavar="EXPERIMENT", help=EXPERIMENT)
    parser.add_argument("overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDES)


def takes_device(parser: Parser, default: str | None, said: str) -> None:
    parser.add_argument(
        "--device", type=device, default=default, metavar="D", help=f"auto, cpu, cuda or cuda:N (default: {said})"
    )


def parse(parser: Parser, argv: list[str]) -> Any:
    """The arguments, with flags before, after and between the overrides."""
    args, unknown = parser.parse_known_intermixed_args(argv)
    for word in unknown:
        near = difflib.get_close_matches(word.partition("=")[0], parser._option_string_actions, 1)
        if near:
            raise UserError(f"{word}: unknown option; did you mean {near[0]}?")
        if word.startswith("-"):
            raise UserError(f"{word}: unknown option; settings are written section.key=value, without dashes")
        parser.error(f"{word}: one word too many")
    return args


def device(word: str) -> str:
    if word.startswith("mps"):
        raise argparse.ArgumentTypeError(f"{word}: tasks are drawn in float64, which MPS does not have; use cpu")
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", word):
        raise argparse.ArgumentTypeError(f"{word}: must be one of auto, cpu, cuda, cuda:N")
    return word


def versions() -> str:
    from . import __version__

    used = [f"{name} {metadata.version(name)}" for name in ("torch", "numpy")]
    return f"fmaml {__version__} (Python {sys.version.split()[0]}, {', '.join(used)})"
