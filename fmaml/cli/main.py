"""The command line. Each command imports its modules when it runs, so that help and messages appear at once."""

import difflib
import io
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata

from ..errors import Ended, Error, exit_code, note
from ..files.standard_output import clean_streams
from .adapt_command import adapt_command
from .arguments import add_experiment_arguments, new_parser, parse_arguments
from .demo_command import demo_command
from .model_commands import export_command, predict_command, test_command
from .report_commands import compare_command, runs_command
from .run_commands import resume_command, run_command

HELP = """\
usage: fmaml COMMAND ...

Model-agnostic meta-learning, with the tasks of a meta-batch in one vectorised call.

commands:
  ls       list experiments, trained models, data, networks, algorithms and optimizers
  show     print all settings of an experiment, with defaults
  run      meta-train and meta-test an experiment
  resume   continue an interrupted run, or several
  predict  classify photographs with a trained model and a few examples of each class
  adapt    adapt a trained model to your classes, and save it as a file; or add to such a file
  export   write an adapted model as ONNX, or as a file for torch, that runs without fmaml
  runs     list runs with their progress and results
  compare  compare runs: settings, results, a paired test on the same test tasks
  test     meta-test a trained model: other ways, shots, steps, other data
  demo     open a page where a trained model learns your drawings or photographs
  cache    list or clear the cache of decoded images

examples:
  fmaml predict omniglot --support DIR scan.png  which character is it? DIR has examples of each
  fmaml run omniglot                       train on Omniglot: 5 classes, 1 example of each
  fmaml run omniglot --quick               a short run of it: two minutes, no download
  fmaml run omniglot --dry-run             check everything, train nothing
  fmaml show omniglot > mine.yaml          write a file to edit
  fmaml run mine.yaml algorithm.steps=5    ... and run it
  fmaml run omniglot --seeds 0,1,2         three runs: mean and spread over seeds
  fmaml run omniglot optimizer.lr=0.001,0.01   one run for each value, compared in a table
  fmaml resume runs/omniglot/TIME          continue an interrupted run
  fmaml compare runs/a runs/b --html c.html  which is better, and is it significant? with a page of curves
  fmaml ls model                           list the models and their settings

`fmaml COMMAND --help` explains a command; `fmaml --version` prints the versions in use.
"""


HOME = """\
fmaml: models that learn new classes from a few examples (meta-learning, on PyTorch)

  fmaml run experiments/omniglot.yaml --quick              meta-train on characters: two minutes, and a report
  fmaml adapt photographs --support FOLDER --out mine.safetensors
                                                           your photographs, a folder for each class
  fmaml demo                                               draw characters in the browser; a model names them

`fmaml --help` lists all commands.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's arguments), and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # print a question mark if a terminal cannot show ± or →
            stream.reconfigure(errors="replace")
    if "OMP_WAIT_POLICY" not in os.environ:  # torch reads it when it is imported
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # idle threads sleep soon; twice as fast on a busy machine
    with clean_streams():
        return run_and_report_errors(sys.argv[1:] if argv is None else argv)


def run_and_report_errors(argv: list[str]) -> int:
    """Run the command, print its error if it ends with one, and return the exit code."""
    try:
        code = run_selected_command(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except Error as error:
        if os.environ.get("FMAML_DEBUG"):
            raise
        if isinstance(error, Ended):
            time.sleep(error.grace_s)
        for line in str(error).splitlines():
            note(line)
        return exit_code(error)
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        note("out of memory; close other programs, or raise the limit on memory (`ulimit -v`)")
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:  # writing the output failed, for example on a full disk; other OSErrors become Errors
        if os.environ.get("FMAML_DEBUG"):
            raise
        note(f"{error.filename or 'the output'}: {error.strerror or error}; write it elsewhere")
        return 2


def run_selected_command(argv: list[str]) -> int:
    """Run the command in the first argument, or print help or versions; return the exit code."""
    if not argv:
        print(HOME, end="")
        return 0
    first = argv[0]
    if first in COMMANDS:
        check_working_folder()
        return COMMANDS[first](argv[1:]) or 0
    if first in ("-h", "--help", "help"):
        print(HELP, end="")
    elif first == "--version":
        print(version_line())
    else:
        raise Error(f"{first}: unknown command; {suggest_command(first)}`fmaml --help` shows how it is used")
    return 0


def check_working_folder() -> None:
    """Error if the working directory was removed: paths have no meaning then, and torch ends the process."""
    try:
        os.getcwd()
    except OSError as error:
        raise Error(f"the working directory: {error.strerror}; it was removed, so `cd` to one that exists") from None


def suggest_command(word: str) -> str:
    """The command that was probably meant, or all commands, as part of a message."""
    if word.endswith((".yaml", ".yml")):
        return f"did you mean `fmaml run {word}`? "
    closest = difflib.get_close_matches(word, COMMANDS, 1, 0.5)
    return f"did you mean {closest[0]}? " if closest else f"the commands are {', '.join(COMMANDS)}; "


def show_command(argv: list[str]) -> None:
    """`fmaml show`: print an experiment's settings as YAML."""
    parser = new_parser("show", "Print all settings of an experiment, with defaults, as a YAML file for `fmaml run`.")
    add_experiment_arguments(parser)
    args = parse_arguments(parser, argv)

    from ..config.load import load_config
    from ..config.strict_yaml import dump_yaml

    print(dump_yaml(load_config(args.experiment, args.overrides, note)), end="")


def ls_command(argv: list[str]) -> None:
    """`fmaml ls`: list experiments and names, or the settings of a section."""
    parser = new_parser(
        "ls", "List the experiments that are packaged with fmaml, and the names that a section can take."
    )
    what = "list the settings of this section, such as model, for each name; or models: the trained models"
    parser.add_argument("section", nargs="?", help=what)
    args = parse_arguments(parser, argv)

    if args.section == "models":
        from ..models.model_card import overview_of_models

        print(overview_of_models())
        return

    from ..config.listing import describe_section, overview

    print(describe_section(args.section) if args.section else overview())


def cache_command(argv: list[str]) -> None:
    """`fmaml cache`: list or clear the cache of decoded images."""
    parser = new_parser(
        "cache",
        "List the cached decoded images with their sizes, or delete them with `clear`. Deleted images are decoded "
        "again when needed. The variable FMAML_CACHE_LIMIT, such as 5G, limits the cache.",
    )
    parser.add_argument("action", nargs="?", choices=["list", "clear"], default="list", help="default: list")
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help="the names in the list to clear")
    parser.add_argument("--all", action="store_true", help="clear everything")
    args = parse_arguments(parser, argv)
    if args.action == "list" and (args.names or args.all):
        raise Error("cache list: takes no names; to delete, write `fmaml cache clear NAME` or `--all`")
    if args.action == "clear" and bool(args.names) == args.all:
        raise Error("cache clear: give the names that `fmaml cache` lists, or --all for everything")

    from ..data.files.cache_files import clear, listing, total

    if args.action == "list":
        print("\n".join(listing()))
    else:
        print(f"cleared {total(clear(args.names, everything=args.all))}")


COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "run": run_command,
    "resume": resume_command,
    "show": show_command,
    "ls": ls_command,
    "predict": predict_command,
    "adapt": adapt_command,
    "export": export_command,
    "test": test_command,
    "demo": demo_command,
    "runs": runs_command,
    "compare": compare_command,
    "cache": cache_command,
}


def version_line() -> str:
    """The versions of fmaml, Python, torch and numpy."""
    from .. import __version__

    used = [f"{name} {metadata.version(name)}" for name in ("torch", "numpy")]
    return f"fmaml {__version__} (Python {sys.version.split()[0]}, {', '.join(used)})"
