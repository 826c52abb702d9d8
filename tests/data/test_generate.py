"""Text written by a model: drawn as its probabilities say, with a window over the last symbols, the same every time."""

import torch

from fmaml import Batch, Task
from fmaml.data.text import generate
from fmaml.data.text.generate import generate_symbols, one_line, write_samples

NOTHING = {"p": torch.zeros(1)}


def successor(params, x):
    """Sure of the next of ten symbols, but of 2 once the first of four symbols that it reads is 5."""
    sure = (x + 1) % 10
    sure = torch.where(x[:, :1] == 5, 2, sure) if x.shape[1] == 4 else sure
    return 100.0 * torch.nn.functional.one_hot(sure, 10)


def test_each_symbol_follows_from_those_before(monkeypatch):
    monkeypatch.setattr(generate, "_SAMPLE_LENGTH", 6)
    assert generate_symbols(NOTHING, successor, [3], context=3, key=0) == [4, 5, 6, 7, 8, 9]


def test_the_model_reads_the_last_symbols_and_no_more(monkeypatch):
    monkeypatch.setattr(generate, "_SAMPLE_LENGTH", 6)
    assert generate_symbols(NOTHING, successor, [3], context=4, key=0) == [4, 5, 6, 7, 8, 2]
    assert generate_symbols(NOTHING, successor, [1, 2, 3, 4, 5], context=4, key=0) == [6, 7, 8, 2, 3, 4]


def test_symbols_are_drawn_as_the_tempered_probabilities_say(monkeypatch):
    monkeypatch.setattr(generate, "_SAMPLE_LENGTH", 4000)
    logits = torch.tensor([0.0, 1.0, 2.0])
    text = generate_symbols(NOTHING, lambda params, x: logits.expand(1, x.shape[1], 3), [0], context=8, key=1)
    expected = (logits / generate._TEMPERATURE).softmax(0)
    assert (torch.tensor(text).bincount(minlength=3) / 4000 - expected).abs().max() < 0.02
    again = generate_symbols(NOTHING, lambda params, x: logits.expand(1, x.shape[1], 3), [0], context=8, key=1)
    other = generate_symbols(NOTHING, lambda params, x: logits.expand(1, x.shape[1], 3), [0], context=8, key=2)
    assert text == again
    assert text != other


def test_the_file_holds_what_was_given_and_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "_PROMPT_LENGTH", 2)
    passages = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    batch = Batch(passages[:, :-1], passages[:, 1:])
    task = Task(batch, Batch(batch.x.flip(0), batch.y.flip(0)))
    trajectory = [{"p": torch.zeros(1)}, {"p": torch.ones(1)}, {"p": torch.full((1,), 2.0)}]

    def apply(params, x):  # writes the number of inner steps
        return 100.0 * torch.nn.functional.one_hot(params["p"].long().expand_as(x), 10)

    write_samples(tmp_path / "samples.txt", [task], [trajectory], apply, lambda text: "".join(map(str, text)))
    lines = [line.split() for line in (tmp_path / "samples.txt").read_text().splitlines()]
    assert lines[0] == ["language", "0"]
    assert [line[-1] for line in lines[1:]] == ["012", "45", "67", "0" * 120, "2" * 120]
    assert lines[5][:4] == ["after", "2", "inner", "steps"]


def test_a_text_stays_on_its_line():
    assert one_line("a\nb\tc\x00d é 漢") == "a⏎b\ufffdc\ufffdd é 漢"
