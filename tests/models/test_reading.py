"""A model that goes on learning from the text it reads: the same however the text is cut, and after a save."""

from copy import deepcopy

import pytest
import torch

import fmaml
from fmaml.cli.main import main
from fmaml.errors import Error

TEXT = "".join(f"the {word} sat on the {place}. " for word in ("cat", "dog", "cow") for place in ("mat", "log", "sea"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of a few meta-steps on eight texts."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "texts").mkdir()
    for author in "abcdefgh":
        (folder / "texts" / f"{author}.txt").write_text(f"{author} wrote " * 30)
    settings = ["data.name=texts", f"data.root={folder / 'texts'}", "data.length=16", "data.shots=6", "model.width=8"]
    settings += ["model.heads=2", "algorithm.chunks=3", "eval.steps=3", "eval.tasks=2", "train.meta_steps=2"]
    settings += ["train.validate_tasks=2", "--device", "cpu", "--out", str(folder / "run")]
    assert main(["run", "stream", *settings]) == 0
    return folder / "run"


@pytest.fixture
def reader(run):
    return fmaml.load(run).stream()


def test_it_scores_and_learns_as_in_training(run, reader):
    """Chunks of two passages of 16 bytes: the columns of `evaluate`, position by position."""
    learner = fmaml.load(run)
    found = reader.read(TEXT[: 4 * 32 + 1])
    symbols = torch.tensor(list(TEXT[: 4 * 32 + 1].encode()))
    stream = fmaml.Batch(symbols[:-1].view(1, 8, 16), symbols[1:].view(1, 8, 16))
    task = fmaml.Task(*(fmaml.Batch(*(part[:, place] for part in stream)) for place in (slice(6), slice(6, 8))))
    network, theta = learner.for_outputs(256)
    metric = fmaml.transductive(network.model.apply, fmaml.bits)
    expected = fmaml.evaluate(network.algorithm, metric, theta, task)[0]
    assert torch.allclose(torch.tensor(found), expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 32, 33, 100])
def test_however_the_text_is_cut_the_answer_is_the_same(run, reader, size):
    whole = fmaml.load(run).stream()
    expected = whole.read(TEXT)
    found = [value for start in range(0, len(TEXT), size) for value in reader.read(TEXT[start : start + size])]
    assert found == expected
    assert torch.equal(reader.next_byte(), whole.next_byte())
    assert reader.chunks_read == len(TEXT) // 32


def test_a_saved_state_continues_exactly(run, reader, tmp_path):
    reader.read(TEXT[:50])
    reader.save(tmp_path / "state.safetensors")
    later = fmaml.load(run).stream(tmp_path / "state.safetensors")
    assert later.read(TEXT[50:]) == reader.read(TEXT[50:])
    assert later.next_byte().sum() == pytest.approx(1, abs=1e-5)


def test_wrong_models_and_states_are_named(run, reader, tmp_path):
    with pytest.raises(Error, match=r"omniglot.*: was not trained on streams of bytes; train such a model with"):
        fmaml.load("omniglot").stream()
    with pytest.raises(ValueError, match="nothing was read yet; read a text first"):
        reader.next_byte()
    fmaml.load(run).save(tmp_path / "learner.safetensors")
    with pytest.raises(Error, match=r"learner\.safetensors: not the state of a stream; name a file that its `save`"):
        fmaml.load(run).stream(tmp_path / "learner.safetensors")


def test_text_of_another_type_is_named(reader):
    with pytest.raises(TypeError, match="read: text is of type NoneType; give a string or bytes"):
        reader.read(None)


def test_half_of_a_pair_of_surrogates_is_named_and_nothing_is_read(reader):
    with pytest.raises(ValueError, match=r"character 2, '\\udc80', is half of a pair.*; give the bytes of the text"):
        reader.read("ab\udc80" + TEXT)
    assert reader.pending == b""
    reader.read("ab\udc80".encode("utf-8", "surrogateescape"))  # the bytes of a file whose encoding is unknown
    assert reader.pending == b"ab\x80"


def test_a_state_that_cannot_be_written_is_named(reader, tmp_path):
    with pytest.raises(Error, match=r"a\.safetensors: No such file or directory; name a file that can be written"):
        reader.save(tmp_path / "missing" / "a.safetensors")
    with pytest.raises(Error, match="name a file that can be written"):
        reader.save(tmp_path)


def test_a_state_of_a_model_trained_in_another_way_is_refused(run, reader, tmp_path):
    """The same shapes, but other chunks: the numbers would differ from those of the model that saved it."""
    reader.metadata = deepcopy(reader.metadata)
    reader.metadata["config"]["algorithm"]["chunks"] = 2
    reader.save(tmp_path / "state.safetensors")
    with pytest.raises(Error, match="the state of another model; load the model that has read this text"):
        fmaml.load(run).stream(tmp_path / "state.safetensors")


def test_a_state_loaded_as_a_model_names_its_cure(reader, tmp_path):
    reader.save(tmp_path / "state.safetensors")
    with pytest.raises(Error, match=r"state of a stream; fmaml\.load\(MODEL\)\.stream\(.*state\.safetensors"):
        fmaml.load(tmp_path / "state.safetensors")
