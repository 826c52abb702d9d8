"""Arguments of the command line: parsers whose mistakes are one line, and what several commands take."""

import argparse
import difflib
import re
from typing import NoReturn

from ..errors import Error

EXPERIMENT = "a YAML file, the name of an experiment that `fmaml ls` lists, or - for standard input"
OVERRIDES = "settings that replace those of the file, such as algorithm.inner_lr=0.1 or data.name=glyphs"
PICTURE_FORMATS = ("png", "svg", "pdf")
MODEL = "a model file, the folder of a run, or the name of a model that `fmaml ls models` lists"

SEVERAL_RUNS = """\
Several values of a setting, with commas between, are a run each: algorithm.inner_lr=0.1,0.4. Of several such settings
and seeds every combination is run, 100 at most. A list in brackets is one value, so data.ways=[3,8],5 are two; text of
any kind is one value, so quote each of several: 'data.root="a","b"'. The runs lie in one folder; --resume and
`fmaml resume` go on with what is not finished."""


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake as a Error: one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """Raise Error in place of exiting."""
        raise Error(f"{message}; `{self.prog} --help` shows how it is used")


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


def add_trust_option(parser: Parser) -> None:
    """Add --trust."""
    help_text = "import the functions outside fmaml that a model file names, from this folder or installed"
    parser.add_argument("--trust", action="store_true", help=help_text)


def add_sweep_options(parser: Parser) -> None:
    """Add --seeds, --repeat and --jobs, and what is said of several runs at the end of the help."""
    parser.add_argument("--seeds", type=list_of_seeds, metavar="N,N,..", help="a run for each of these seeds")
    parser.add_argument("--repeat", type=positive, metavar="N", help="N runs, from the experiment's seed on")
    add_jobs_option(parser)
    parser.epilog = SEVERAL_RUNS


def add_jobs_option(parser: Parser) -> None:
    """Add --jobs."""
    help_text = "of several runs, how many at a time; they share the processor's cores (default: 1)"
    parser.add_argument("--jobs", type=positive, metavar="N", help=help_text)


def list_of_seeds(word: str) -> list[int]:
    """The seeds that ``word`` lists; else argparse's error."""
    if not re.fullmatch(r"[0-9]{1,10}(,[0-9]{1,10})*", word):
        raise argparse.ArgumentTypeError(f"{word}: must be whole numbers with commas between, such as 0,1,2")
    return [int(part) for part in word.split(",")]


def positive(word: str) -> int:
    """``word`` as a whole number, 1 or more; else argparse's error."""
    if not re.fullmatch(r"[0-9]{1,6}", word) or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word}: must be a whole number, 1 or more")
    return int(word)


def add_format_option(parser: Parser) -> None:
    """Add --format."""
    help_text = "write the pictures in these formats too: svg, pdf or both (default: png alone)"
    parser.add_argument("--format", type=picture_formats, default=(), metavar="svg,pdf", help=help_text)


def parse_arguments(parser: Parser, argv: list[str]) -> argparse.Namespace:
    """The parsed arguments; options may stand before, after and between the overrides.

    Raises Error for an argument that the command does not take.
    """
    args, unknown = parser.parse_known_intermixed_args(argv)
    for word in unknown:
        closest = difflib.get_close_matches(word.partition("=")[0], parser._option_string_actions, 1)
        if closest:
            raise Error(f"{word}: unknown option; did you mean {closest[0]}?")
        if word.startswith("-"):
            raise Error(f"{word}: unknown option; settings are written section.key=value, without dashes")
        parser.error(f"{word}: one argument too many")
    return args


def device_name(word: str) -> str:
    """``word``, if it names a device; else argparse's error, which the parser reports."""
    if word.startswith("mps"):
        raise argparse.ArgumentTypeError(f"{word}: tasks are drawn in float64, which MPS does not support; use cpu")
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", word):
        raise argparse.ArgumentTypeError(f"{word}: must be one of auto, cpu, cuda, cuda:N")
    return word


def picture_formats(words: str) -> tuple[str, ...]:
    """The formats in a list with commas, if pictures can be written in them; else argparse's error."""
    formats = tuple(words.lower().split(","))
    for word in formats:
        if word not in PICTURE_FORMATS:
            raise argparse.ArgumentTypeError(f"{word}: must be one or more of {', '.join(PICTURE_FORMATS)}")
    return formats
