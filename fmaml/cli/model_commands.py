"""`fmaml predict`, `export` and `test`: trained models. Imports torch only when a command runs."""

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Error, note
from ..extras import require
from ..processes.limits import importing_torch
from .arguments import MODEL, Parser, add_device_option, add_trust_option, new_parser, parse_arguments

if TYPE_CHECKING:
    from ..data.preprocessing import Ink
    from ..export.standalone import Exportable
    from ..models.learner import Adapted

SUPPORT = "a folder with a folder of images for each class, or with one image for each class, named after the class"

REJECT = (
    "the share of pictures of your classes that may be named none of these, because they are far from every class "
    "(default: 0.05; 0 names every picture)"
)


def predict_command(argv: list[str]) -> None:
    """`fmaml predict`: classify photographs."""
    parser = new_parser("predict", "Classify photographs with a trained model and a few examples of each class.")
    parser.add_argument("model", metavar="MODEL", help=f"{MODEL}; or a file from `fmaml adapt`")
    parser.add_argument("photos", nargs="+", metavar="PHOTO_OR_DIR", help="images, or folders of images")
    add_support_options(parser)
    add_ink_option(parser)
    parser.add_argument("--reject", type=share, metavar="SHARE", help=REJECT)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--csv", action="store_true", help="print CSV instead of a table")
    parser.add_argument("--html", metavar="FILE", help="also write a page with thumbnails")
    args = parse_arguments(parser, argv)
    if args.json and args.csv:
        raise Error("--json and --csv: give one of them")
    if args.html and Path(args.html).is_dir():
        raise Error(f"--html {args.html}: is a folder; name the file to write")
    classes = list_photos(args.photos)
    photos = list(classes)

    adapted = adapted_by(args.model, args.support, args.steps, args.trust, args.ink)

    from ..calibration import NONE, USUAL_REJECT
    from ..report import format_predictions as present
    from ..report.own_accuracy import describe_accuracy, describe_class_none, describe_learnt, describe_refused

    reject = (USUAL_REJECT if adapted.can_reject else 0) if args.reject is None else args.reject
    try:
        prediction = adapted.predict(photos, args.ink, reject=reject or None)
    except ValueError as error:
        raise Error(f"{args.model}: {error}") from None
    rows = present.rows_of(photos, prediction, adapted.classes)
    accuracy = describe_accuracy(rows, list(classes.values()), adapted.classes) if any(classes.values()) else []
    if accuracy and (learnt := set(adapted.metadata.get("learnt", []))):
        accuracy += describe_learnt(sum(digest in learnt for digest in digests(photos)), len(photos))
    refused = describe_refused(rows, reject)
    if args.html:
        with named_in_errors("--html", args.html):
            present.write_page(Path(args.html), rows, adapted, args.model, [*accuracy, *refused])
        note(f"the page is {args.html}")
    if args.json:
        print(present.as_json(rows))
    elif args.csv:
        print(present.as_csv(rows), end="")
    else:
        present.print_table(rows)
    named_none = [describe_class_none()] if NONE in adapted.classes else []
    for line in [*named_none, *refused, *accuracy]:
        note(line)


def list_photos(paths: list[str]) -> dict[str, str | None]:
    """Image file -> its class, or None, for the arguments; Error for one that does not exist. Imports no torch.

    An image has a class if an argument is a folder of class folders.
    """
    from ..data.images.scan import Classes, describe_skipped, list_entries, list_pictures, read_tree

    found: dict[str, str | None] = {}
    for path in map(Path, paths):
        own: Classes = {}
        if path.is_dir() and list_entries(path).folders:
            own, skipped = read_tree(path)
            for line in describe_skipped(skipped, path):
                note(line)
        found |= {file: name for name, files in own.items() for file in files}
        if not own:
            found |= dict.fromkeys(list_pictures(path))
    return found


def export_command(argv: list[str]) -> None:
    """`fmaml export`: write a network that runs without fmaml."""
    parser = new_parser(
        "export",
        "Write an adapted network as a file that runs without fmaml. MODEL is a file from `fmaml adapt`, or a model "
        "with --support. A model without --support is written as a feature extractor, if its head is made per task.",
    )
    parser.add_argument("model", metavar="MODEL", help=f"{MODEL}; or a file from `fmaml adapt`")
    parser.add_argument("--to", required=True, choices=["onnx", "torch"], help="ONNX, or a file for torch.export.load")
    add_support_options(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write, such as mine.onnx or mine.pt2")
    args = parse_arguments(parser, argv)
    if args.steps is not None and args.support is None:
        raise Error("--steps: inner steps need a support set; give --support too, or leave out --steps")
    check_is_new(args.out)
    if args.to == "onnx":
        require("--to onnx", "onnx", "onnx", "onnxruntime", "onnxscript")

    with importing_torch():
        from ..export.formats import write_export

    exportable = exportable_by(args.model, args.support, args.steps, args.trust)
    with named_in_errors("--out", args.out):
        write_export(Path(args.out), exportable, args.to)
    print(f"{args.out} has the network's outputs to 1e-5 of the largest one, for batches of any size")


def test_command(argv: list[str]) -> int:
    """`fmaml test`: meta-test a model; return the exit code."""
    parser = new_parser(
        "test",
        "Meta-test a trained model on unseen tasks: with other ways, shots, steps or more tasks, or on other data.",
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    help_text = "settings that replace the model's own, such as data.ways=20, data.name=glyphs or eval.tasks=2000"
    parser.add_argument("overrides", nargs="*", default=[], metavar="section.key=value", help=help_text)
    add_device_option(parser, "auto", "auto")
    parser.add_argument("--out", metavar="DIR", help="a folder for results.json: new, or without results")
    add_trust_option(parser)
    args = parse_arguments(parser, argv)

    with importing_torch():
        from .evaluate import run_test

    return run_test(args.model, args.overrides, device=args.device, out=args.out, trust=args.trust)


def add_support_options(parser: Parser) -> None:
    """Add --support, --steps and --trust."""
    parser.add_argument("--support", metavar="DIR", help=SUPPORT)
    parser.add_argument("--steps", type=steps, metavar="N", help="inner steps (default: the model's own)")
    add_trust_option(parser)


def add_ink_option(parser: Parser) -> None:
    """Add --ink."""
    text = (
        "for models of characters: drawings are dark on light, light on dark, or (default) guessed from their borders"
    )
    parser.add_argument("--ink", choices=["auto", "dark", "light"], default="auto", help=text)


def check_is_new(out: str) -> None:
    """Raise Error if the file to write exists."""
    if Path(out).exists():
        raise Error(f"--out {out}: the file exists, and it is not overwritten; give another name")


@contextmanager
def named_in_errors(option: str, file: str) -> Iterator[None]:
    """Turn an OSError in the block, from writing the option's file, into Error."""
    try:
        yield
    except OSError as error:
        raise Error(f"{option} {file}: {error.strerror}; name a file that can be written") from None


def steps(word: str) -> int:
    """``word`` as a number of inner steps; else argparse's error, which the parser reports."""
    if not word.isdecimal() or len(word) > 5 or int(word) > 10_000:
        raise argparse.ArgumentTypeError(f"{word}: must be a whole number from 0 to 10000")
    return int(word)


def share(word: str) -> float:
    """``word`` as a share from 0 to below 0.5; else argparse's error, which the parser reports."""
    try:
        found = float(word)
    except ValueError:
        found = -1.0
    if not 0 <= found < 0.5:
        raise argparse.ArgumentTypeError(f"{word}: must be a number from 0 to below 0.5, such as 0.05")
    return found


def adapted_by(model: str, support: str | None, inner_steps: int | None, trust: bool, ink: "Ink") -> "Adapted":
    """The adapted network of a file, or of a model and a support set; Error if they do not fit."""
    with importing_torch():
        from ..models.load import is_adapted, load, load_adapted

    if is_adapted(model):
        adapted = load_adapted(model, trust=trust)
        if support is not None:
            more = f"or add these with `fmaml adapt {model} --support {support}`"
            if adapted.kept is None:
                more = "or adapt its model again to all pictures together, since the file keeps none"
            raise Error(f"{model}: is already adapted to its classes; leave out --support, {more}")
        return adapted
    learner = load(model, trust=trust)
    if support is not None:
        note(describe_support(Path(support)))
    if support is None:
        raise Error(f"--support: missing; {model} needs examples of your classes: give {SUPPORT}")
    try:
        return with_learnt(learner.adapt(support, steps=inner_steps, ink=ink), support)
    except ValueError as error:
        raise Error(f"{model}: {error}") from None


def with_learnt(adapted: "Adapted", support: str) -> "Adapted":
    """The same network, with the digests of the files that it learnt."""
    from ..data.images.label_table import read_labelled

    files = [file for own in read_labelled(Path(support)).classes.values() for file in own]
    learnt = sorted({*adapted.metadata.get("learnt", []), *digests(files)})
    return replace(adapted, metadata={**adapted.metadata, "learnt": learnt})


def digests(files: Iterable[str]) -> list[str]:
    """The digest of each file."""
    return [sha256(Path(file).read_bytes()).hexdigest()[:12] for file in files]


def describe_support(support: Path) -> str:
    """Describe the support set: the number of classes and pictures, their size and kind."""
    from ..data.images.label_table import read_labelled
    from ..data.images.understood import describe_pictures

    return describe_pictures(read_labelled(support).classes)


def exportable_by(model: str, support: str | None, inner_steps: int | None, trust: bool) -> "Exportable":
    """The adapted network of a file, or of a model and a support set; the model's features without a support set."""
    with importing_torch():
        from ..export.standalone import adapted_network, feature_extractor
        from ..models.load import is_adapted, load

    if support is None and not is_adapted(model):
        return feature_extractor(load(model, trust=trust))
    return adapted_network(adapted_by(model, support, inner_steps, trust, "auto"))
