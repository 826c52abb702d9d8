"""`fmaml runs` and `fmaml compare`: list and compare runs from their folders. Imports no torch."""

from pathlib import Path

from ..errors import Error, note
from ..files.atomic import write_text_durably
from .arguments import new_parser, parse_arguments


def runs_command(argv: list[str]) -> None:
    """`fmaml runs`: list runs."""
    parser = new_parser(
        "runs", "List the runs in a folder and below it, newest first, with their progress and results."
    )
    parser.add_argument("folder", nargs="?", default="runs", metavar="FOLDER", help="the folder (default: runs)")
    args = parse_arguments(parser, argv)

    from ..report.run_list import print_runs

    print_runs(Path(args.folder))


def compare_command(argv: list[str]) -> None:
    """`fmaml compare`: compare runs."""
    parser = new_parser(
        "compare",
        "Compare runs: settings that differ, results with intervals, and a paired test of each against the first, if "
        "their test tasks are the same (seed, data and tasks).",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="the folder of a run; the others are compared with the first"
    )
    parser.add_argument("--html", metavar="FILE", help="also write a page, with curves")
    args = parse_arguments(parser, argv)
    if len(args.runs) < 2:
        raise Error("compare: only one run given; name two or more, such as `fmaml runs` lists")
    if args.html and Path(args.html).is_dir():
        raise Error(f"--html {args.html}: is a folder; name the file to write")

    from ..report.compare import compare, print_comparison

    comparison = compare([Path(run) for run in args.runs])
    print_comparison(comparison)
    if args.html:
        from ..report.compare_page import comparison_page

        try:
            write_text_durably(Path(args.html), comparison_page(comparison))
        except OSError as error:
            raise Error(f"--html {args.html}: {error.strerror}; name a file that can be written") from None
        note(f"the page is {args.html}")
