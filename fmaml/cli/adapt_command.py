"""`fmaml adapt`: adapt a trained model to a user's classes, or add to an adapted one."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Error, note
from ..files.plain_text import first_few, printable
from ..processes.limits import importing_torch
from .arguments import MODEL, new_parser, parse_arguments
from .model_commands import (
    SUPPORT,
    adapted_by,
    add_ink_option,
    add_support_options,
    check_is_new,
    describe_support,
    named_in_errors,
    with_learnt,
)

if TYPE_CHECKING:
    from ..models.learner import Adapted

NAMED = 8  # classes
DESCRIPTION = """\
Adapt a trained model to your classes, and save it as one file for `fmaml predict`. If MODEL is such a file, add
pictures to it: a folder with the name of a class adds pictures of that class, and a new name adds a class. The result
is the same as from all pictures at once."""
KEEP = """\
keep the pictures in the file, at the size that the network sees, to add more later; prototypes and ridge regression
without batch norm need only features of the pictures, and always keep those"""


def adapt_command(argv: list[str]) -> None:
    """`fmaml adapt`: write an adapted model."""
    parser = new_parser("adapt", DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help=f"{MODEL}; or a file from `fmaml adapt`, to add to it")
    add_support_options(parser)
    add_ink_option(parser)
    out = "the file to write, such as mine.safetensors; without it, a MODEL from `fmaml adapt` is replaced"
    parser.add_argument("--out", metavar="FILE", help=out)
    parser.add_argument("--keep-support", action="store_true", help=KEEP)
    parser.add_argument("--no-check", action="store_true", help="do not measure the accuracy on these pictures")
    args = parse_arguments(parser, argv)
    if args.support is None:
        raise Error(f"--support: missing; give {SUPPORT}")
    if args.out is not None:
        check_is_new(args.out)

    with importing_torch():
        from ..models.cross_validation import cross_validate, leave_out
        from ..models.load import is_adapted, load_adapted
        from ..models.own_calibration import calibrate_on
        from ..models.pretrained import network_to_try
    from ..report.own_accuracy import describe_growth, describe_own_calibration, print_own_accuracy, print_words

    before = load_adapted(args.model, trust=args.trust) if is_adapted(args.model) else None
    if before is None and args.out is None:
        raise Error("--out: missing; name the file to write, such as mine.safetensors")
    adapted = (
        added_to(before, args) if before else adapted_by(args.model, args.support, args.steps, args.trust, args.ink)
    )
    model, unmeasured = adapted.calibration, ""
    try:
        found = leave_out(adapted)
    except (Error, ValueError) as error:  # such as a network that diverges without some pictures
        found, unmeasured = None, str(error)
    own = calibrate_on(adapted, found)
    adapted = adapted if own is None else adapted.with_calibration(own.calibration)
    out = args.out or args.model
    with named_in_errors("--out", out):
        adapted.save(out, keep_support=args.keep_support or before is not None)
    for line in describe_growth(before.counts or {}, adapted.counts or {}) if before else ():
        print(line)
    named = printable(first_few(adapted.classes, NAMED))
    print_words(f"{out} tells {named} apart; `fmaml predict {out} PHOTO` names photographs")
    if unmeasured:
        print_words(f"accuracy: not measured, because it cannot learn without some pictures: {unmeasured}")
    elif not args.no_check:
        form, accuracy = adapted.blueprint.form, found and cross_validate(adapted, found)
        print_own_accuracy(accuracy, photographs=form is not None and not form.invert)
        if before is None and (line := network_to_try(adapted.learner, accuracy, args.support)):
            print_words(line)
    for line in describe_own_calibration(own, model, adapted.classes):
        print_words(line)


def added_to(before: "Adapted", args: argparse.Namespace) -> "Adapted":
    """An adapted network that learnt more pictures; Error if it kept no support set, or they do not fit."""
    if before.kept is not None:
        note(describe_support(Path(args.support)))
        if args.keep_support and before.kept.of_features:
            note(f"--keep-support: {args.model} keeps features of its pictures, which are enough to add more")
    try:
        return with_learnt(before.add(args.support, steps=args.steps, ink=args.ink), args.support)
    except ValueError as error:
        raise Error(f"{args.model}: {error}") from None
