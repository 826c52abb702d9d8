"""Arguments of the command line: parsers with one-line errors, and the arguments that several commands share."""

import argparse
import difflib
import re
from typing import NoReturn

from ..errors import Error

EXPERIMENT = "a YAML file, the name of an experiment that `fmaml ls` lists, or - for standard input"
OVERRIDES = "settings that replace those of the file, such as algorithm.inner_lr=0.1 or data.name=glyphs"
PICTURE_FORMATS = ("png", "svg", "pdf")
MODEL = "a model file, the folder of a run, a name of `fmaml ls models`, or timm:NETWORK, pretrained on ImageNet"

SEVERAL_RUNS = """\
Several values of a setting, separated by commas, start a run each: algorithm.inner_lr=0.1,0.4. Every combination of
such values and seeds is run, 100 at most. A list in brackets is one value: data.ways=[3,8],5 has two values. Free text
is one value, so quote each of several: 'data.root="a","b"'. All runs are in one folder; --resume and `fmaml resume`
continue the unfinished ones."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises Error for a mistake: one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """Raise Error instead of exiting."""
        raise Error(f"{message}; `{self.prog} --help` shows how it is used")


def new_parser(name: str, description: str) -> Parser:
    """The parser of the command ``name``, without arguments."""
    return Parser(f"fmaml {name}", description=description, allow_abbrev=False)


def add_experiment_arguments(parser: Parser) -> None:
    """Add EXPERIMENT and its overrides."""
    parser.add_argument("experiment", metavar="EXPERIMENT", help=EXPERIMENT)
    parser.add_argument("overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDES)


def add_device_option(parser: Parser, default: str | None, default_text: str) -> None:
    """Add --device; ``default_text`` describes the default in the help."""
    help_text = f"auto, cpu, cuda or cuda:N (default: {default_text})"
    parser.add_argument("--device", type=device_name, default=default, metavar="D", help=help_text)


def add_trust_option(parser: Parser) -> None:
    """Add --trust."""
    help_text = "allow a model file to import functions outside fmaml, from this folder or installed"
    parser.add_argument("--trust", action="store_true", help=help_text)


def add_sweep_options(parser: Parser) -> None:
    """Add --seeds, --repeat and --jobs, and explain several runs at the end of the help."""
    parser.add_argument("--seeds", type=list_of_seeds, metavar="N,N,..", help="one run for each of these seeds")
    parser.add_argument("--repeat", type=positive, metavar="N", help="N runs, with seeds from the experiment's seed on")
    add_jobs_option(parser)
    parser.epilog = SEVERAL_RUNS


def add_jobs_option(parser: Parser) -> None:
    """Add --jobs."""
    help_text = "the number of runs at a time; they share the processor's cores (default: 1)"
    parser.add_argument("--jobs", type=positive, metavar="N", help=help_text)


def list_of_seeds(word: str) -> list[int]:
    """The seeds in ``word``; argparse's error if it is not a list of seeds."""
    if not re.fullmatch(r"[0-9]{1,10}(,[0-9]{1,10})*", word):
        raise argparse.ArgumentTypeError(f"{word}: must be whole numbers separated by commas, such as 0,1,2")
    return [int(part) for part in word.split(",")]


def positive(word: str) -> int:
    """``word`` as a whole number, 1 or more; else argparse's error."""
    if not re.fullmatch(r"[0-9]{1,6}", word) or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word}: must be a whole number, 1 or more")
    return int(word)


def add_format_option(parser: Parser) -> None:
    """Add --format."""
    help_text = "also write the pictures in these formats: svg, pdf or both (default: only png)"
    parser.add_argument("--format", type=picture_formats, default=(), metavar="svg,pdf", help=help_text)


def parse_arguments(parser: Parser, argv: list[str]) -> argparse.Namespace:
    """Parse the arguments; options may stand before, after and between the overrides.

    Raises Error for an unknown argument.
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
    """The formats in a list with commas; argparse's error for an unknown format."""
    formats = tuple(words.lower().split(","))
    for word in formats:
        if word not in PICTURE_FORMATS:
            raise argparse.ArgumentTypeError(f"{word}: must be one or more of {', '.join(PICTURE_FORMATS)}")
    return formats
