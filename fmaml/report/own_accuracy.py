"""The accuracy of a model on the user's pictures, as text."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ..calibration import NONE, USUAL_REJECT, Calibration
from ..files.console import CleanConsole
from ..files.plain_text import counted, printable
from ..intervals import wilson_interval
from ..models.cross_validation import OwnAccuracy, Score
from ..models.own_calibration import LEAST_FOR_LIMIT, OwnCalibration, classes_in_turn
from .format_predictions import Row, shown_names

MOST_LINES = 5  # for confusions, and for pictures
MOST_NAMED = 20  # in the line of classes, the worst ones


def print_own_accuracy(found: OwnAccuracy | None, *, photographs: bool = True) -> None:
    """Print the accuracy of each method and of each class, and a hint if a simple method wins.

    The hints to train, and to test other photographs, are for models of ``photographs``.
    """
    if found is None:
        print("accuracy: not measured, because no class has two pictures; give two or more of each class")
        return
    model_score, *simple = found.scores
    print(f"accuracy on these pictures, {found.how} and predicted from the others (95 % intervals):")
    print("\n".join(score_lines([model_score, *sorted(simple, key=lambda score: -score.accuracy)])))
    if found.untested:
        one = "a class" if len(found.untested) == 1 else "classes"
        print_words(f"  not tested: {shown_first(found.untested)}, {one} of one picture, which cannot be left out")
    if not simple:
        print("  the simple methods need the pictures, which are only kept by --keep-support")
    print_words(f"by class: {by_class(found.classes)}")
    if photographs:
        print_words("photographs of another place or day may be named worse; `fmaml predict` measures folders of them")
    if found.better:
        train = "train on more such classes with `fmaml run photos data.root=FOLDER`, or " if photographs else ""
        print_words(f"{found.better.method} is better here: {train}give more pictures of each class")


def print_words(line: str) -> None:
    """Print a line, broken between words in a terminal."""
    console = CleanConsole()
    console.print(line, soft_wrap=not console.is_terminal)


def describe_growth(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """Lines with the number of pictures of each class that grew, before and now."""
    grown = [name for name in now if now[name] != before.get(name)]
    width = max(len(printable(name)) for name in [*grown, "class"])
    rows = [
        f"  {printable(name):<{width}}  {before.get(name, 'new'):>6}  {now[name]:>4}" for name in grown[:MOST_NAMED]
    ]
    more = [f"  and {len(grown) - MOST_NAMED} more classes"] if len(grown) > MOST_NAMED else []
    same = [name for name in now if name not in grown]
    pictures = counted(sum(now[name] for name in same), "picture")
    rest = [f"  {pictures} of {len(same)} other class{'es' * (len(same) > 1)} as before"] if same else []
    total = f"{sum(before.values())} pictures of {len(before)} classes before, {sum(now.values())} of {len(now)} now"
    return [f"{total}:", f"  {'class':<{width}}  before   now", *rows, *more, *rest]


def describe_own_calibration(own: OwnCalibration | None, model: Calibration | None, classes: list[str]) -> list[str]:
    """Lines about the limit for none of these, and about the temperature."""
    if NONE in classes:
        return [describe_class_none()]
    if own is None:
        how = "the limit is that of the model's own tasks" if model else "not possible"
        least = f"{LEAST_FOR_LIMIT} or more different pictures"
        return [f"{NONE}: {how}; {least} in classes of two or more would give a limit for these classes"]
    pictures = own.calibration.pictures
    low, high = wilson_interval(round(USUAL_REJECT * pictures), pictures)
    lines = [
        f"{NONE}: the limit refuses {USUAL_REJECT:.0%} of these {pictures} pictures, {own.how}; "
        f"of new ones it may refuse {low:.0%} to {high:.0%}"
    ]
    if own.others is not None and own.area is not None:
        refused = f"{own.refused} of {counted(len(own.others), 'picture')} refused"
        tried = len(classes_in_turn(len(classes)))
        turns = "each class" if tried == len(classes) else f"{tried} of the {len(classes)} classes"
        lines.append(f"  pictures of a class that was not learnt, {turns} in turn: {refused}, AUROC {own.area:.1%}")
    origin = "these pictures" if own.own_temperature else "the model, since these pictures or their mistakes are few"
    return [*lines, f"probabilities: temperature {own.calibration.temperature:.2f}, from {origin}"]


def describe_class_none() -> str:
    """The line about a class that has the name of pictures that fit no class."""
    return f"a class is named {NONE!r}, so every picture gets a class; give the class another name to refuse pictures"


def describe_refused(rows: Sequence[Row], reject: float) -> list[str]:
    """A line about the pictures that fit no class, if there are any."""
    refused = sum(row.label == NONE for row in rows) if reject else 0
    if not refused:
        return []
    return [
        f"{refused} of {counted(len(rows), 'picture')} {'fits' if refused == 1 else 'fit'} no class; the limit refuses "
        f"{reject:.1%} of the pictures it was measured on, and --reject 0 names every picture"
    ]


def describe_learnt(learnt: int, pictures: int) -> list[str]:
    """A line about pictures that the network has learnt, if there are any: they raise the accuracy."""
    if not learnt:
        return []
    return [f"{learnt} of these {pictures} pictures were learnt, so the accuracy on new pictures may be lower"]


def score_lines(scores: Sequence[Score]) -> list[str]:
    """One line for each method: its accuracy and interval."""
    width = max(len(score.method) for score in scores)
    return [
        f"  {printable(score.method):<{width}}  {score.accuracy:6.1%}  [{low:.1%}, {high:.1%}]"
        f"  {int(score.right.sum())} of {len(score.right)}"
        for score in scores
        for low, high in [score.interval]
    ]


def by_class(rows: list[tuple[str, int, int]]) -> str:
    """Each class with its number of correct predictions, the worst first."""
    order = sorted(rows, key=lambda row: (row[1] / row[2], row[0]))
    named = ", ".join(f"{printable(name)} {right}/{count}" for name, right, count in order[:MOST_NAMED])
    left = len(order) - MOST_NAMED
    return named + (f" and {left} more" if left > 0 else "")


def describe_accuracy(rows: Sequence[Row], truth: Sequence[str | None], classes: Sequence[str]) -> list[str]:
    """Lines about predictions for pictures of known classes: accuracy, confusions, and the worst pictures.

    Pictures of classes that the network has not learnt are counted separately.
    """
    truth = [None if name is None else learnt_class(name, classes) for name in truth]
    labelled = [(row, name) for row, name in zip(rows, truth, strict=True) if name is not None and name in classes]
    others = sorted({name for name in truth if name is not None and name not in classes})
    unknown = sum(name in others for name in truth)
    refused = sum(row.label == NONE for row, name in zip(rows, truth, strict=True) if name in others)
    left_out: list[str] = []
    if others:
        found = f"{counted(unknown, 'picture')} of classes that were not learnt: {shown_first(others)}"
        found += f"; {refused} named {NONE}" if NONE in rows[0].probabilities else ""
        left_out = [f"{found}; `fmaml adapt` adds classes"]
    if not labelled:
        return left_out
    wrong = sorted(((row, name) for row, name in labelled if row.label != name), key=lambda pair: -pair[0].probability)
    shown = dict(zip((row.image for row in rows), shown_names(list(rows)), strict=True))
    count = len(labelled)
    right = count - len(wrong)
    low, high = wilson_interval(right, count)
    lines = [f"accuracy {right / count:.1%} [{low:.1%}, {high:.1%}]: {right} of {counted(count, 'picture')}"]
    confusions = Counter((name, row.label) for row, name in wrong).most_common()
    shown_confusions = confusions[:MOST_LINES]
    lines += [f"  {printable(name)} taken for {printable(label)}: {times}" for (name, label), times in shown_confusions]
    if rest := sum(times for _, times in confusions[MOST_LINES:]):
        lines += [f"  and {counted(rest, 'other mistake')}"]
    worst = [
        f"  {printable(shown[row.image])}: {printable(row.label)} {row.probability:.1%}"
        for row, _ in wrong[:MOST_LINES]
    ]
    return [*lines, *(["the most confident mistakes:", *worst] if worst else []), *left_out]


def learnt_class(name: str, classes: Sequence[str]) -> str:
    """The learnt class of a folder's path: the same path, else the only one with the same last part, else ``name``."""
    last = [known for known in classes if known.rpartition("/")[2] == name.rpartition("/")[2]]
    return name if name in classes or len(last) != 1 else last[0]


def shown_first(names: list[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - MOST_LINES} more" if len(names) > MOST_LINES else ""
    return printable(", ".join(names[:MOST_LINES])) + more
