"""The Universal Declaration of Human Rights in 380 languages, from unicode.org, packed by NLTK (udhr2)."""

from pathlib import Path
from typing import Annotated

import torch

from ...setting_types import FreeOnResume, Size
from ..dataset_facts import class_names
from ..files.find import DataFiles, Download, find_or_download
from ..files.zips import open_files, zip_or_folder
from ..source import SPLITS, Source
from ..text.languages import Passages, passages_source

_URL = "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/udhr2.zip"
_MD5 = "e604482d2dc8dd2580af7d97c1bf0a80"
_MAX_TEXT_BYTES = 200_000  # the longest text has 46 thousand
_MAX_ZIP_BYTES = 10_000_000  # the published zip has 1.7 million


def udhr(
    *,
    seed: int,
    device: torch.device,
    shots: Size = 4,
    queries: Size = 4,
    length: Size = 64,
    tokenizer: str | None = None,
    in_context: bool = False,
    in_order: bool = False,
    root: Annotated[str | None, FreeOnResume] = None,
    download: Annotated[bool, FreeOnResume] = True,
) -> Source:
    """Languages of the world: passages of the Universal Declaration of Human Rights, byte by byte.

    Returns a source of tasks: support x and y int64 [tasks, shots, length], query x and y int64 [tasks, queries,
    length]. x is a passage of ``length`` bytes, y the byte after each of them. A task is a language, and each of its
    passages is from another article. Closely related languages are in the same split. ``tokenizer`` is the folder of a
    tokenizer of `transformers`: passages then consist of its tokens. Results are always in bits per byte.

    ``in_order`` takes passages that follow one another, support then query: a stream for `fmaml.streamed`.
    ``in_context`` also tests the support passages as a prompt before each query; the network's context must hold both.
    ``root`` is the folder with the files. Without it fmaml searches for them, and downloads them if ``download``. Texts
    are on ``device``. Tasks depend only on ``seed``. Raises Error if the files are missing or damaged, or a text has
    too few articles for ``shots + queries`` passages of this length.
    """
    path = locate_udhr(root, download)
    names = {split: class_names("udhr", split) for split in SPLITS}
    collection = {
        split: {f"{path}: {name}.txt": text for name, text in zip(own, read_udhr_files(path, own), strict=True)}
        for split, own in names.items()
    }
    about = {"license": "public domain", "data": "udhr", "file": str(path)}
    about |= {"task": "languages", "protocol": "the Declaration of Human Rights"}
    passages = Passages(shots, queries, length, tokenizer, in_context, in_order)
    return passages_source(collection, seed, device, passages, about)


def locate_udhr(root: str | None, download: bool) -> Path:
    """Find the zip or the folder udhr2; download it if needed and allowed. Error if it cannot be found."""
    files = DataFiles(
        name="Declaration of Human Rights",
        folders=("udhr", "corpora", "nltk_data/corpora"),  # the last two are NLTK's
        expected=f"udhr2.zip, from {_URL}, or the folder udhr2 that it unpacks to",
        downloads=(Download(_URL, "udhr/udhr2.zip", _MD5),),
        builtin="markov",
    )
    return find_or_download(lambda folder: zip_or_folder(folder, "udhr2"), root, files, allow_download=download)


def read_udhr_files(path: Path, names: list[str]) -> list[bytes]:
    """Read the texts of languages such as ``por_BR`` from the zip or the folder. Error if one is missing."""
    with open_files(path, _MAX_ZIP_BYTES) as (_, read):
        return [read(f"udhr2/{name}.txt", _MAX_TEXT_BYTES) for name in names]
