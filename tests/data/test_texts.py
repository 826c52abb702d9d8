"""Texts of one's own as tasks, and tokenizers: the same bits a byte whatever the symbols are."""

import math

import pytest
import torch

import fmaml
from fmaml.data.sources.texts import texts
from fmaml.data.text.tokens import bits_per_byte, bytes_of_token, read_alphabet
from fmaml.errors import Error

CPU = torch.device("cpu")


def article(author: str, number: int) -> str:
    return f"{author} says sentence {number}: " + " ".join(f"{author}{number}" for _ in range(12))


@pytest.fixture
def root(tmp_path):
    for author in "abcdefgh":
        (tmp_path / f"{author}.txt").write_text("\n\n".join(article(author, i) for i in range(8)))
    (tmp_path / "z").mkdir()
    for i in range(8):
        (tmp_path / "z" / f"{i}.txt").write_text(article("z", i))
    return tmp_path


def source(root, **options):
    return texts(seed=0, device=CPU, root=str(root), **{"shots": 2, "queries": 2, "length": 20, **options})


def test_a_task_is_a_text_and_no_text_is_in_two_splits(root):
    made = source(root)
    authors: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        tasks = made.sample(split, 0, range(60))
        passages = torch.cat([tasks.support.x, tasks.query.x], 1)
        written = [bytes(task.flatten().tolist()).decode() for task in passages]
        found = [
            {
                letter
                for letter in "abcdefghz"
                if f"{letter}0" in text or f"{letter}1" in text or any(f"{letter}{i}" in text for i in range(8))
            }
            for text in written
        ]
        assert all(len(each) == 1 for each in found)
        authors[split] = set.union(*found)
    assert sorted(letter for split in authors.values() for letter in split) == list("abcdefghz")
    assert made.about["texts"] == {"train": 6, "val": 1, "test": 2}


def test_in_order_the_passages_follow_one_another_in_the_text(root):
    made = source(root, in_order=True, shots=3)
    tasks = made.sample("train", 0, range(20))
    texts = [path.read_text() for path in root.glob("*.txt")] + ["\n\n".join(article("z", i) for i in range(8))]
    for i in range(20):
        x, y = (torch.cat([getattr(batch, axis)[i] for batch in tasks]) for axis in "xy")
        stream = bytes([*x.flatten().tolist(), int(y[-1, -1])]).decode()
        assert len(stream) == 5 * 20 + 1
        assert any(stream in text for text in texts)
        assert torch.equal(x.flatten()[1:], y.flatten()[:-1])


def test_a_text_that_is_shorter_than_the_stream_is_named(root):
    (root / "a.txt").write_text("x" * 100)
    with pytest.raises(Error, match=r"a\.txt: has 100 symbols, and a stream needs .* = 101; give fewer or shorter"):
        source(root, in_order=True, shots=3)


def test_folders_of_splits_are_the_split(root):
    for split, names in {"train": "abcdef", "val": "g", "test": "h"}.items():
        (root / split).mkdir()
        for name in names:
            (root / f"{name}.txt").rename(root / split / f"{name}.txt")
    assert source(root).about["texts"] == {"train": 6, "val": 1, "test": 1}


def test_what_is_wrong_is_one_line(root, tmp_path):
    with pytest.raises(Error, match="no such folder; name a folder with a text file for each task"):
        source(root / "none")
    (root / "empty").mkdir()
    with pytest.raises(Error, match="no text in it; expected a file for each task"):
        source(root / "empty")
    with pytest.raises(Error, match=r"[a-h].txt: only 8 of its articles have 21 or more symbols.*give fewer"):
        source(root, shots=9)


def test_tokens_stand_for_all_bytes_of_the_text(tokenizer):
    alphabet = read_alphabet(str(tokenizer))
    assert alphabet.bytes_of is not None
    for text in ("All human beings", "naïve café ☃", "tab\tand\nline"):
        tokens = torch.tensor(alphabet.encode(text.encode()))
        assert len(tokens) < len(text.encode()) or "☃" in text
        assert int(alphabet.bytes_of[tokens].sum()) == len(text.encode())
        assert alphabet.decode(tokens.tolist()) == text
    assert alphabet.bytes_of[-1] > 0 or alphabet.bytes_of[0] == 0  # the special token is no text


def test_bytes_of_other_vocabularies():
    assert [bytes_of_token(name, False) for name in ("▁the", "é", "<0x0A>", "a")] == [4, 2, 1, 1]


def test_bits_are_divided_by_the_bytes(tokenizer):
    alphabet = read_alphabet(str(tokenizer))
    assert alphabet.bytes_of is not None
    y = torch.tensor([alphabet.encode(b"All human beings are born free")])
    uniform = torch.zeros(1, y.shape[1], alphabet.size)
    expected = math.log2(alphabet.size) * y.shape[1] / 30
    assert float(bits_per_byte(alphabet.bytes_of)(uniform, y)) == pytest.approx(expected, rel=1e-6)
    assert float(bits_per_byte(torch.ones(alphabet.size))(uniform, y)) == pytest.approx(float(fmaml.bits(uniform, y)))


def test_passages_of_tokens(root, tokenizer):
    tasks = source(root, tokenizer=str(tokenizer), length=12).sample("train", 0, range(4))
    assert tasks.support.x.shape == (4, 2, 12)
    assert int(tasks.support.x.max()) > 256
    decode = read_alphabet(str(tokenizer)).decode
    assert any(f"{letter}" in decode(tasks.support.x[0, 0].tolist()) for letter in "abcdefghz")


def test_a_folder_without_a_tokenizer_is_named(root, tmp_path):
    with pytest.raises(Error, match=r"no such folder; give one with a tokenizer\.json, or null for bytes"):
        source(root, tokenizer=str(tmp_path / "none"))
    with pytest.raises(Error, match="holds no tokenizer that transformers can read"):
        source(root, tokenizer=str(root / "z"))
