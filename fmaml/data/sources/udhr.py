"""The Universal Declaration of Human Rights in 380 languages, collected by unicode.org, packed by NLTK (udhr2)."""

import re
from pathlib import Path
from typing import Annotated

import torch

from ...errors import UserError
from ...losses import Apply, transductive
from ...pickling import picklable
from ...ranges import FreeOnResume, Size
from ...regular_files import read_regular
from ...types import Params, Task
from ..files.find import DataFiles, Download, find_or_download
from ..files.zips import open_zip, read_member, zip_or_folder
from ..published import class_names
from ..rng import SPLITS
from ..source import Source
from ..text.generate import BITS_PER_BYTE, write_samples
from ..text.passages import Texts, pack_texts, sample_passages

_URL = "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/udhr2.zip"
_MD5 = "e604482d2dc8dd2580af7d97c1bf0a80"
_SYMBOLS = 256  # byte values
_MAX_TEXT_BYTES = 200_000  # the longest text has 46 thousand
_MAX_ZIP_BYTES = 10_000_000  # the published zip has 1.7 million


def udhr(
    *,
    seed: int,
    device: torch.device,
    shots: Size = 4,
    queries: Size = 4,
    length: Size = 64,
    root: Annotated[str | None, FreeOnResume] = None,
    download: Annotated[bool, FreeOnResume] = True,
) -> Source:
    """Languages of the world: passages of the Universal Declaration of Human Rights, byte by byte.

    Returns a source of tasks: support x and y int64 [tasks, shots, length], query x and y int64 [tasks, queries,
    length]. x is a passage of ``length`` bytes, y the byte after each of them. A task is a language, and each of its
    passages is from another article. Close relatives are all in one split.

    ``root`` is the folder with the files; without it they are looked for, and downloaded if ``download``. Texts go to
    ``device``. Tasks are a function of ``seed``. Raises UserError if the files are absent or damaged, or a text has too
    few articles for ``shots + queries`` passages of this length.
    """
    path = locate_udhr(root, download)
    splits = {split: _read_split(path, split, shots + queries, length, device) for split in SPLITS}
    return passages_of(splits, str(path), seed=seed, shots=shots, queries=queries, length=length)


@picklable
def passages_of(splits: dict[str, Texts], file: str, *, seed: int, shots: Size, queries: Size, length: Size) -> Source:
    """The source of passages of these texts, which were read from ``file``."""

    def sample(split: str, step: int, tasks: range) -> Task:
        return sample_passages(splits[split], seed, split, step, tasks, shots=shots, queries=queries, length=length)

    def show(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
        write_samples(folder / "samples.txt", tasks, phis, apply, lambda text: bytes(text).decode(errors="replace"))

    sizes = {split: len(class_names("udhr", split)) for split in SPLITS}
    about = {
        "license": "public domain",
        "data": "udhr",
        "file": file,
        "task": f"languages, {shots} passages",
        "protocol": f"bytes of the Declaration of Human Rights; {shots} support and {queries} query passages of "
        f"{length} bytes, each from another article, from {sizes['test']} unseen languages",
        "shots": shots,
        "queries": queries,
        "length": length,
        "languages": sizes,
    }
    return Source(
        sample, (length,), _SYMBOLS, about, show, metric=BITS_PER_BYTE, settings=(transductive,), data=dict(splits)
    )


def locate_udhr(root: str | None, download: bool) -> Path:
    """The zip or the folder udhr2; downloaded if needed and allowed. UserError if it cannot be found."""
    files = DataFiles(
        name="Declaration of Human Rights",
        folders=("udhr", "corpora", "nltk_data/corpora"),  # the last two are NLTK's
        expected=f"udhr2.zip, from {_URL}, or the folder udhr2 that it unpacks to",
        downloads=(Download(_URL, "udhr/udhr2.zip", _MD5),),
        builtin="markov",
    )
    return find_or_download(lambda folder: zip_or_folder(folder, "udhr2"), root, files, allow_download=download)


def _read_split(path: Path, split: str, passages: int, length: int, device: torch.device) -> Texts:
    """A split's texts on the device. UserError for one that is absent or has too few articles for ``passages``."""
    names = class_names("udhr", split)
    texts = [split_articles(content, length + 1) for content in read_udhr_files(path, names)]
    fewest = min(range(len(names)), key=lambda i: len(texts[i]))
    if len(texts[fewest]) < passages:
        raise UserError(
            f"{path}: {names[fewest]}.txt has {len(texts[fewest])} articles of {length + 1} or more bytes, and the "
            f"data.shots + data.queries = {passages} passages of a task are each from another one; give fewer, "
            f"or a smaller data.length"
        )
    return pack_texts(texts, device)


def read_udhr_files(path: Path, names: list[str]) -> list[bytes]:
    """The texts of the named languages, such as ``por_BR``, from the zip or the folder. UserError if one is absent."""
    try:
        if path.is_dir():
            return [read_regular(path / f"{name}.txt", _MAX_TEXT_BYTES) for name in names]
        with open_zip(path, _MAX_ZIP_BYTES) as archive:
            return [read_member(archive, f"udhr2/{name}.txt", _MAX_TEXT_BYTES) for name in names]
    except (KeyError, FileNotFoundError) as error:
        raise UserError(f"{path}: a text is missing ({error}); copy or download it again: {_URL}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); copy or download it again: {_URL}") from error


def split_articles(content: bytes, least: int) -> list[bytes]:
    """The parts of a text between blank lines, without indentation; parts shorter than ``least`` bytes are merged.

    Each is joined to the next part, the last one to the previous part. Empty if the whole text is shorter.
    """
    lines = b"\n".join(line.strip() for line in content.splitlines())
    joined: list[bytes] = []
    for part in re.split(rb"\n{2,}", lines.strip()):
        if joined and len(joined[-1]) < least:
            joined[-1] += b"\n" + part
        else:
            joined.append(part)
    if len(joined) > 1 and len(joined[-1]) < least:
        short = joined.pop()
        joined[-1] += b"\n" + short
    return [article for article in joined if len(article) >= least]
