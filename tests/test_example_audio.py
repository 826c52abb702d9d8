"""Spoken words of `examples/audio/`, with made tones in place of recordings."""

import json
import math
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from spoken import tones, write_recordings, write_wav

from fmaml.cli.main import main

TOP = Path(__file__).parent.parent
SMALL = ["train.meta_steps=2", "train.validate_tasks=2", "eval.tasks=2", "model.width=4", "--device", "cpu"]
CPU = torch.device("cpu")


def mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


@pytest.fixture
def audio(monkeypatch):
    """The module, with the checkout as the current folder."""
    monkeypatch.chdir(TOP)
    monkeypatch.syspath_prepend(str(TOP))
    return import_module("examples.audio.audio")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("recordings"))


def test_a_network_adapts(audio, recordings, tmp_path):
    words = ["run", "examples/audio/audio_adapted.yaml", f"data.root={recordings}", *SMALL]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert [len(column) for column in results["results"].values()] == [4, 4]  # inner steps 0 to 3
    assert results["results"]["nearest pixel"][0]["mean"] > 0.9


def test_it_is_trained_and_names_wav_files(audio, recordings, tmp_path, monkeypatch, capsys):
    run, support = tmp_path / "run", tmp_path / "support"
    assert main(["run", "examples/audio/audio.yaml", f"data.root={recordings}", *SMALL, "--out", str(run)]) == 0
    support.mkdir()
    for word in "678":
        shutil.copy(recordings / f"{word}_theo_0.wav", support)
    asked = [str(recordings / f"{word}_theo_6.wav") for word in "876"]
    monkeypatch.setattr(sys, "argv", ["predict", str(run), str(support), *asked, "--picture", str(tmp_path / "p.png")])
    capsys.readouterr()
    import_module("examples.audio.predict").main()
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1].split(",")[0] for line in said] == ["8_theo", "7_theo", "6_theo"]
    assert (tmp_path / "p.png").stat().st_size > 1000


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 2500.0])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_tone_is_loudest_in_its_own_mel_band(audio, hertz, rate):
    image = audio.log_mel(tones(hertz, rate=rate), rate)
    assert image.shape == (32, 32)
    assert 0 <= image.min() < 0.01
    assert image.max() == pytest.approx(1)
    band = (mel(hertz) - mel(60)) / (mel(3400) - mel(60)) * 33 - 1  # centre of band i: edge i + 1 of 34
    assert abs(int(image[:, 16].argmax()) - band) <= 0.6
    raised = audio.log_mel(tones(1.15 * hertz, rate=rate), rate, voice=1.15)
    assert abs(int(raised[:, 16].argmax()) - band) <= 0.6


def test_silence_loudness_and_speed_leave_the_image(audio):
    said, quiet = tones(500, 1500), torch.zeros(3200)
    image = audio.log_mel(said, 8000)
    assert (audio.log_mel(torch.cat([quiet, 0.1 * said, quiet]), 8000) - image).abs().mean() < 0.03
    assert (audio.log_mel(tones(500, 1500, seconds=0.4), 8000) - image).abs().mean() < 0.05
    assert (audio.log_mel(tones(1500, 500), 8000) - image).abs().mean() > 0.1


def test_a_wav_file_keeps_its_samples(audio, tmp_path):
    samples = tones(440)
    both = torch.stack([samples, torch.zeros_like(samples)], 1).flatten()
    for file, scale in (
        (write_wav(tmp_path / "1.wav", samples), 1),
        (write_wav(tmp_path / "2.wav", both, 16000, 2), 0.5),
    ):
        found, rate = audio.read_wav(file)
        assert rate == 8000 / scale
        assert torch.allclose(found, scale * samples, atol=1e-4)
    with pytest.raises(ValueError, match="8 kHz or more"):
        audio.read_wav(write_wav(tmp_path / "3.wav", samples, 4000))


def test_test_words_and_speakers_are_unseen(audio, recordings):
    source = audio.words(seed=0, device=CPU, root=str(recordings), voices=[1.0, 0.87], backwards=True)
    heard = {}
    for split in ("train", "val", "test"):
        names = {name for row in source.classes_of(split, 0, range(50)) for name in row}
        heard[split] = [set(part) for part in zip(*(name.split(" by ") for name in names), strict=True)]
    assert heard["test"] == [set("6789"), {"theo", "yweweler"}]
    for split, speakers in (("train", {"george", "jackson", "lucas"}), ("val", {"nicolas"})):
        assert heard[split] == [set("012345"), speakers]
    train = source.data["train"]
    assert source.about["classes"] == {"train": 72, "val": 6, "test": 8}
    forward, lower, back = (train.images[7 * first] for first in (0, 18, 36))
    assert torch.equal(back, forward.flip(-1))
    assert not torch.equal(lower, forward)
    assert torch.equal(forward, audio.images_of([recordings / "0_george_0.wav"])[0])
    assert torch.equal(source.data["test"].images[0], audio.images_of([recordings / "6_theo_0.wav"])[0])


def test_the_nearest_pixel_knows_clean_tones_and_not_noise(audio, recordings):
    source = audio.words(seed=0, device=CPU, root=str(recordings), shots=2)
    assert source.references("test", 0, range(20))["nearest pixel"].mean() > 0.95
    noise = torch.randint(256, source.data["test"].images.shape, dtype=torch.uint8)
    source.data["test"].images.copy_(noise)
    assert source.references("test", 0, range(20))["nearest pixel"].mean() < 0.5


def test_a_folder_without_recordings_is_refused(audio, tmp_path):
    with pytest.raises(ValueError, match=r"has no file 0_george_\*.wav"):
        audio.words(seed=0, device=CPU, root=str(tmp_path))
