"""The accuracy of a model on all classes of a user's folder at once, for `fmaml test`."""

from pathlib import Path
from typing import Any

from ..data.images.image_cache import decoded_images
from ..data.preprocessing import Form
from ..data.sources.image_folder import find_images
from ..errors import Error
from ..files.plain_text import printable
from ..models.cross_validation import leave_out
from ..models.learner import Learner
from ..models.user_images import scaled
from ..report.format_predictions import Row
from ..report.own_accuracy import describe_accuracy


def describe_all_classes(learner: Learner, data: dict[str, Any], form: Form) -> list[str]:
    """Lines with accuracy, confusions and worst pictures; each picture is named by a model that learnt the others.

    ``data`` is that section of the config, and ``form`` is that of its source, for which the pictures are in the cache.
    """
    path = Path(data["root"]).expanduser().resolve()
    columns = [data.get(key) for key in ("file_column", "label_column")]
    found = find_images(path, data["root"], "all", *columns, strict=False)
    classes = (found.splits or {}).get("test", found.classes)
    files = [file for own in classes.values() for file in own]
    pixels, errors = decoded_images("folder", path if path.is_dir() else path.parent, files, form)
    readable = [(name, file) for name, own in classes.items() for file in own if file not in errors]
    rows_of: dict[str, list[int]] = {}
    for row, (name, _) in enumerate(readable):
        rows_of.setdefault(name, []).append(row)
    try:
        adapted = learner.adapt({name: scaled(pixels[rows].numpy()) for name, rows in rows_of.items()})
        left_out = leave_out(adapted)
    except (Error, ValueError) as error:
        return [f"all classes at once: not tested, because the model cannot learn them: {printable(str(error))}"]
    if left_out is None:
        return []
    tested = [readable[row] for name in adapted.classes for row in rows_of[name] if len(rows_of[name]) > 1]
    table = zip(tested, adapted.probabilities_of(left_out.logits).tolist(), strict=True)
    rows = [
        Row(
            file,
            adapted.classes[max(range(len(values)), key=values.__getitem__)],
            dict(zip(adapted.classes, values, strict=True)),
        )
        for (_, file), values in table
    ]
    head = f"all {len(adapted.classes)} classes at once, {left_out.how} and named by a model that learnt the others:"
    return [head, *describe_accuracy(rows, [name for name, _ in tested], adapted.classes)]
