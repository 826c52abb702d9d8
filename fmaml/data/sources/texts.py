"""Your own texts: a file or a folder for each author, style or language. The split is yours or random."""

from pathlib import Path
from typing import Annotated

import torch

from ...errors import Error
from ...files.regular import read_regular
from ...setting_types import FreeOnResume, Natural, Size, Unit
from ..class_splits import random_split
from ..images.scan import split_paths
from ..source import Source
from ..text.languages import Collection, Passages, passages_source

_MAX_TEXT_BYTES = 100_000_000


def texts(
    *,
    seed: int,
    device: torch.device,
    root: Annotated[str, FreeOnResume],
    shots: Size = 4,
    queries: Size = 4,
    length: Size = 64,
    tokenizer: str | None = None,
    in_context: bool = False,
    in_order: bool = False,
    fractions: tuple[Unit, Unit, Unit] = (0.64, 0.16, 0.2),
    split_seed: Natural = 0,
) -> Source:
    """Your own texts: root/NAME.txt or root/NAME/*.txt, one for each author, style or language.

    Returns a source of tasks: support x and y int64 [tasks, shots, length], query x and y int64 [tasks, queries,
    length]. x is a passage of ``length`` bytes, y the byte after each of them. A task is a text. Blank lines divide it
    into articles; articles shorter than a passage are joined. Each passage is from another article. ``tokenizer``,
    ``in_order`` and ``in_context`` are as in `udhr`.

    Folders train, val and test in ``root`` are the split. Without them texts are split by ``fractions`` (train, val,
    test) and ``split_seed``. Texts are on ``device``. Tasks depend only on ``seed``. Raises Error if there are too few
    texts, or one is too short or cannot be read.
    """
    path = Path(root).expanduser().resolve()
    collection = list_collection(path, root, fractions, split_seed)
    about = {"license": "that of your texts", "data": "texts", "files": [str(path)]}
    about |= {"task": "texts", "protocol": str(path.name)}
    passages = Passages(shots, queries, length, tokenizer, in_context, in_order)
    return passages_source(collection, seed, device, passages, about)


def list_collection(path: Path, root: str, fractions: tuple[float, ...], split_seed: int) -> Collection:
    """The texts of each split, by path; Error if the folder has none, or too few to split."""
    if not path.is_dir():
        raise Error(f"data.root = {root}: no such folder; name a folder with a text file for each task")
    folders = split_paths(path)
    if folders:
        return {split: read_folder(folder) for split, folder in folders.items()}
    found = read_folder(path)
    split = random_split(sorted(found), fractions, split_seed)
    return {part: {name: found[name] for name in names} for part, names in split.items()}


def read_folder(folder: Path) -> dict[str, bytes]:
    """Read the text of each file ``*.txt``, and of each folder of them, by path; Error if there is none."""
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    files = {entry: [entry] if entry.is_file() else sorted(entry.rglob("*.txt")) for entry in entries}
    found = {str(entry): read_files(part) for entry, part in files.items() if part and part[0].suffix == ".txt"}
    if not found:
        raise Error(
            f"{folder}: no text in it; expected a file for each task, {folder}/NAME.txt, or a folder of such files"
        )
    return found


def read_files(files: list[Path]) -> bytes:
    """Join the files' texts with blank lines; Error for an unreadable file."""
    try:
        return b"\n\n".join(read_regular(file, _MAX_TEXT_BYTES) for file in files)
    except OSError as error:
        raise Error(f"{error.filename}: {error.strerror}; name texts that can be read") from error
