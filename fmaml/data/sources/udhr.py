"""The Universal Declaration of Human Rights in 380 languages, collected by unicode.org, packed by NLTK (udhr2)."""

import re
import zipfile
import zlib
from pathlib import Path

import torch

from ...errors import UserError
from ...losses import Apply, transductive
from ...ranges import Count
from ...types import Params, Task
from ..files.download import download as fetch
from ..files.find import cache_folder, find, missing
from ..source import Source
from ..text.generate import BITS_A_BYTE, write_samples
from ..text.passages import Texts, pack, sample_passages

URL = "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/udhr2.zip"
MD5 = "e604482d2dc8dd2580af7d97c1bf0a80"
FOLDERS = ("udhr", "corpora", "nltk_data/corpora")  # the last two are NLTK's
EXPECTED = f"udhr2.zip, from {URL}, or the folder udhr2 that it unpacks to"
CURE = (
    "name the folder that holds it by data.root=FOLDER or FMAML_DATA=FOLDER, "
    "or take data.name=markov, which needs no file"
)
SPLITS = ("train", "val", "test")
BYTES = 256  # symbols
LARGEST = 200_000  # bytes of a text; the longest has 46 thousand
LARGEST_ZIP = 10_000_000  # bytes; the published one has 1.7 million


def udhr(
    *,
    seed: int,
    device: torch.device,
    shots: Count = 4,
    queries: Count = 4,
    length: Count = 64,
    root: str | None = None,
    download: bool = True,
) -> Source:
    """Languages of the world: passages of the Universal Declaration of Human Rights, byte by byte.

    A task is a language, and each of its passages, ``length`` bytes to read and the byte after each of them to predict,
    is from another article. Close relatives are all in one split. ``root`` is the folder with the files; without it
    they are looked for, and downloaded if ``download``.
    """
    path = locate(root, download)
    splits = {split: read(path, split, shots + queries, length, device) for split in SPLITS}

    def sample(split: str, step: int, tasks: range) -> Task:
        return sample_passages(splits[split], seed, split, step, tasks, shots=shots, queries=queries, length=length)

    def show(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
        write_samples(folder / "samples.txt", tasks, phis, apply, lambda text: bytes(text).decode(errors="replace"))

    sizes = {split: len(languages(split)) for split in SPLITS}
    about = {
        "data": "udhr",
        "file": str(path),
        "task": f"languages, {shots} passages",
        "protocol": f"bytes of the Declaration of Human Rights; {shots} support and {queries} query passages of "
        f"{length} bytes, each from another article, from {sizes['test']} unseen languages",
        "shots": shots,
        "queries": queries,
        "length": length,
        "languages": sizes,
    }
    return Source(
        sample, (length,), BYTES, about, show, metric=BITS_A_BYTE, settings=(transductive,), data=dict(splits)
    )


def languages(split: str) -> list[str]:
    """The names of a split's texts, such as ``por_BR``, from the file that fixes it."""
    lines = (Path(__file__).parent.parent / "splits" / f"udhr_{split}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def locate(root: str | None, download: bool) -> Path:
    """The zip or the folder, downloaded if need be and allowed. A root that was asked for is never passed over."""
    found = find(_inside, root, FOLDERS)
    if found is None and root is None and download:
        fetch(URL, cache_folder() / "udhr" / "udhr2.zip", MD5, cure=CURE)
        found = find(_inside, root, FOLDERS)
    if found is None:
        raise missing("Declaration of Human Rights", EXPECTED, root, FOLDERS, cure=CURE)
    return found


def _inside(folder: Path) -> Path | None:
    """A zip goes before a folder: a zip cut short is noticed."""
    zipped = folder / "udhr2.zip"
    return zipped if zipped.is_file() else folder / "udhr2" if (folder / "udhr2").is_dir() else None


def read(path: Path, split: str, passages: int, length: int, device: torch.device) -> Texts:
    """A split's texts on the device. UserError for one that is missing, or too short for so many passages."""
    names = languages(split)
    texts = [articles(content, length + 1) for content in _contents(path, names)]
    fewest = min(range(len(names)), key=lambda i: len(texts[i]))
    if len(texts[fewest]) < passages:
        raise UserError(
            f"{path}: {names[fewest]}.txt has {len(texts[fewest])} articles of {length + 1} or more bytes, and the "
            f"data.shots + data.queries = {passages} passages of a task are each from another one; give fewer, "
            f"or a smaller data.length"
        )
    return pack(texts, device)


def _contents(path: Path, names: list[str]) -> list[bytes]:
    try:
        if path.is_dir():
            return [(path / f"{name}.txt").read_bytes() for name in names]
        if path.stat().st_size > LARGEST_ZIP:
            raise zipfile.BadZipFile(f"it has more than {LARGEST_ZIP} bytes")
        with zipfile.ZipFile(path) as archive:
            return [_member(archive, f"udhr2/{name}.txt") for name in names]
    except (KeyError, FileNotFoundError) as error:
        raise UserError(f"{path}: a text is missing ({error}); copy or download it again: {URL}") from error
    # RuntimeError: encrypted; NotImplementedError: an unknown compression; the rest: damaged or cut short
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read whole ({error}); copy or download it again: {URL}") from error


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > LARGEST:
        raise zipfile.BadZipFile(f"{name} has more than {LARGEST} bytes")
    return archive.read(name)


def articles(content: bytes, least: int) -> list[bytes]:
    """What stands between blank lines, without indentation; one shorter than ``least`` bytes is joined to the next."""
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
