"""Languages: texts split into articles, tasks that never mix them, splits that keep relatives together."""

import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from fmaml.data.dataset_facts import class_names
from fmaml.data.source import SPLITS
from fmaml.data.sources import udhr as module
from fmaml.data.sources.udhr import locate_udhr, read_udhr_files, udhr
from fmaml.data.text.languages import split_articles
from fmaml.data.text.passages import pack_texts, sample_passages
from fmaml.data.text.tokens import read_alphabet
from fmaml.errors import Error

CPU = torch.device("cpu")
BYTES = read_alphabet(None)
NAMES = {"train": ["aaa", "bbb"], "val": ["ccc"], "test": ["ddd_x", "ddd_y"]}


def text(name: str, parts: int = 12, size: int = 30) -> bytes:
    """Articles that tell where they are from: each is one letter, after a heading of its language's."""
    return b"\n  \n".join(b"   " + name[0].encode() + bytes([65 + i]) * size for i in range(parts))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FMAML_DATA", raising=False)
    monkeypatch.setattr(module, "class_names", lambda data, split: NAMES[split])
    return tmp_path / "data"


def put(root: Path, texts: dict[str, bytes] | None = None, folder: bool = False) -> Path:
    texts = {name: text(name) for names in NAMES.values() for name in names} if texts is None else texts
    if folder:
        (root / "udhr2").mkdir(parents=True)
        for name, content in texts.items():
            (root / "udhr2" / f"{name}.txt").write_bytes(content)
    else:
        root.mkdir(exist_ok=True)
        with zipfile.ZipFile(root / "udhr2.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in texts.items():
                archive.writestr(f"udhr2/{name}.txt", content)
    return root


def source(root: Path, **options):
    return udhr(**{"seed": 0, "device": CPU, "root": str(root), "shots": 3, "queries": 4, "length": 8, **options})


def refusal(root: Path, **options) -> str:
    with pytest.raises(Error) as caught:
        source(root, **options)
    return str(caught.value)


# ---- articles


def test_articles_stand_between_blank_lines_and_short_ones_are_joined():
    content = b"Title\n \n   Article 1\r\n   All human beings\n\t\n\n  II\n\nNo one\n\nend\n"
    assert split_articles(content, 1, BYTES) == [b"Title", b"Article 1\nAll human beings", b"II", b"No one", b"end"]
    assert split_articles(content, 7, BYTES) == [b"Title\nArticle 1\nAll human beings", b"II\nNo one\nend"]
    assert split_articles(content, 20, BYTES) == [b"Title\nArticle 1\nAll human beings\nII\nNo one\nend"]
    assert split_articles(content, 100, BYTES) == []
    assert split_articles(b"", 5, BYTES) == []


@pytest.mark.parametrize("least", [1, 4, 9, 33])
def test_no_word_is_lost_and_none_is_too_short(least):
    content = b"\n\n".join(b"x" * n for n in (1, 2, 30, 3, 4, 1, 50, 2))
    parts = split_articles(content, least, BYTES)
    assert b"".join(parts).replace(b"\n", b"") == content.replace(b"\n", b"")
    assert min(map(len, parts)) >= least


# ---- tasks


@pytest.mark.parametrize("folder", [False, True])
def test_passages_of_a_task_are_of_one_language_and_all_of_other_articles(root, folder):
    tasks = source(put(root, folder=folder)).sample("test", 5, range(200))
    assert tasks.support.x.shape == (200, 3, 8)
    assert tasks.query.y.shape == (200, 4, 8)
    assert tasks.support.x.dtype == torch.int64
    for support, query in zip(tasks.support.y, tasks.query.y, strict=True):
        drawn = [int(passage[-1]) for passage in (*support, *query)]  # the letter tells the article
        assert len(set(drawn)) == 7
    for batch in tasks:
        assert torch.equal(batch.x[..., 1:], batch.y[..., :-1])


def test_every_article_and_every_place_in_it_is_drawn():
    texts = pack_texts([[torch.arange(10 * i, 10 * i + 6 + i) for i in range(5)], [torch.arange(100, 109)] * 4], CPU)
    tasks = sample_passages({"train": texts}, 0, "train", 0, range(4000), shots=2, queries=1, length=5)
    begun = torch.cat([tasks.support.x[..., 0], tasks.query.x[..., 0]], 1)
    counts = Counter(begun.flatten().tolist())
    first = {10 * i + k for i in range(5) for k in range(i + 1)}
    assert set(counts) == first | {100, 101, 102, 103}
    assert (begun[:, 0] < 100).double().mean() == pytest.approx(0.5, abs=0.04)
    for i in range(5):  # 2,000 tasks with 3 of 5 articles each
        assert sum(counts[10 * i + k] for k in range(i + 1)) == pytest.approx(1200, abs=120)
        assert counts[10 * i] == pytest.approx(1200 / (i + 1), rel=0.25)
    whole = torch.cat([tasks.support.x, tasks.query.x], 1)
    assert (whole.diff() == 1).all()  # a passage never runs into the next article
    assert torch.equal(tasks.query.y - 1, tasks.query.x)


def test_a_task_is_a_function_of_seed_split_step_and_number(root):
    put(root)
    everything = source(root).sample("train", 3, range(6)).query.x
    parts = [source(root).sample("train", 3, tasks).query.x for tasks in (range(0, 6, 2), range(1, 6, 2))]
    assert torch.equal(everything, torch.stack(parts, 1).flatten(0, 1))
    assert not torch.equal(source(root, seed=1).sample("train", 3, range(6)).query.x, everything)
    assert not torch.equal(source(root).sample("train", 4, range(6)).query.x, everything)


def test_splits_are_read_from_their_own_texts(root):
    tasks = {split: source(put(root)).sample(split, 0, range(40)) for split in SPLITS}
    letters = {split: set(tasks[split].support.x[..., :1].flatten().tolist()) for split in SPLITS}
    for split, names in NAMES.items():
        assert {letter for letter in letters[split] if letter > 96} == {ord(name[0]) for name in names}


# ---- what is wrong with the files


def test_missing_data_says_where_it_was_looked_for_and_where_to_get_it(root):
    message = refusal(root)
    for word in (f"data.root = {root}", "udhr2.zip", "nltk_data", "FMAML_DATA=FOLDER", "data.name=markov"):
        assert word in message


def test_without_a_network_the_cure_is_told(root, monkeypatch):
    monkeypatch.setattr(module, "_URL", "http://127.0.0.1:9/udhr2.zip")
    with pytest.raises(Error, match=r"127\.0\.0\.1:9/udhr2\.zip: .*data\.name=markov"):
        udhr(seed=0, device=CPU)
    with pytest.raises(Error, match=r"no Declaration of Human Rights in "):
        udhr(seed=0, device=CPU, download=False)


@pytest.mark.parametrize("damage", [lambda b: b[:200], lambda b: b"no zip", lambda b: b[:60] + b"xx" + b[62:]])
def test_a_broken_zip_is_named(root, damage):
    path = put(root) / "udhr2.zip"
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(root)
    assert str(path) in message
    assert "download it again" in message


@pytest.mark.parametrize("folder", [False, True])
def test_a_missing_text_is_named(root, folder):
    texts = {name: text(name) for names in NAMES.values() for name in names if name != "bbb"}
    message = refusal(put(root, texts, folder))
    assert "bbb.txt" in message
    assert message.endswith("; copy or download it again")


@pytest.mark.parametrize("short", [b"", b"too short", text("d", parts=6)])
def test_a_text_too_short_for_a_task_is_named(root, short):
    texts = {name: text(name) for names in NAMES.values() for name in names}
    message = refusal(put(root, {**texts, "ddd_y": short}))
    assert "ddd_y.txt: only" in message
    assert "data.shots + data.queries = 7" in message


def test_passages_longer_than_articles_are_refused(root):
    assert "smaller data.length" in refusal(put(root), length=100)


# ---- the splits, and the real texts


def test_every_language_is_in_one_split_and_so_are_variants_of_one():
    names = [name for split in SPLITS for name in class_names("udhr", split)]
    assert {split: len(class_names("udhr", split)) for split in SPLITS} == {"train": 266, "val": 38, "test": 76}
    assert len(set(names)) == len(names) == 380
    codes = {split: {name.split("_")[0] for name in class_names("udhr", split)} for split in SPLITS}
    assert len(set.union(*codes.values())) == sum(map(len, codes.values()))


real = pytest.mark.real_data("udhr")


@real
def test_the_splits_hold_every_text_of_4096_bytes():
    with zipfile.ZipFile(locate_udhr(None, download=False)) as archive:
        sizes = {Path(info.filename).stem: info.file_size for info in archive.infolist() if not info.is_dir()}
    assert {name for split in SPLITS for name in class_names("udhr", split)} == {
        n for n, size in sizes.items() if size >= 4096
    }


@real
def test_relatives_are_in_one_split():
    """The rule in the files' headers: across splits no cosine of trigram counts reaches 0.55; the nearest is 0.54."""
    path = locate_udhr(None, download=False)
    counts = {split: [trigrams(c) for c in read_udhr_files(path, class_names("udhr", split))] for split in SPLITS}
    nearest = {}
    vocabulary = {gram: i for i, gram in enumerate({g for rows in counts.values() for row in rows for g in row})}
    for split, rows in counts.items():
        matrix = np.zeros((len(rows), len(vocabulary)), np.float32)
        for i, row in enumerate(rows):
            matrix[i, [vocabulary[gram] for gram in row]] = list(row.values())
        nearest[split] = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    across = {pair: (nearest[pair[0]] @ nearest[pair[1]].T).max() for pair in (("test", "train"), ("test", "val"))}
    assert across["test", "train"] == pytest.approx(0.543, abs=1e-3)
    assert across["test", "val"] < 0.55
    assert (nearest["val"] @ nearest["train"].T).max() < 0.55


def trigrams(content: bytes) -> Counter[str]:
    letters = re.sub(r"[\W\d_]+", " ", content.decode().lower())
    return Counter(letters[i : i + 3] for i in range(len(letters) - 2))


@real
def test_the_real_texts_give_tasks():
    source = udhr(seed=0, device=CPU, download=False)
    assert source.about["languages"] == {"train": 266, "val": 38, "test": 76}
    task = source.sample("test", 0, range(20))
    assert task.support.x.shape == (20, 4, 64)
    assert len(source.sample("test", 0, range(64)).query.x.unique()) > 100  # many scripts
