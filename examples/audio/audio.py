"""Spoken words as images: log-mel spectrograms of wav files, and tasks of unseen words by unseen speakers."""

import wave
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from fmaml.data import Source
from fmaml.data.class_examples import Split
from fmaml.data.episodes import Episode, episodes
from fmaml.setting_types import Count, Rate, TrainWays, Ways, gives

BANDS, FRAMES = 32, 32  # height and width of an image
LOWEST, HIGHEST = 60.0, 3400.0  # Hz; a voice of 1.15 stays below half of 8 kHz
WINDOW, HOP = 0.032, 0.008  # seconds
RANGE, SILENCE = 60.0, 40.0  # decibels below the loudest band: drawn, and taken as speech at both ends
SPLITS = {  # words and speakers; those of test are in no other split
    "train": ("012345", ("george", "jackson", "lucas")),
    "val": ("012345", ("nicolas",)),
    "test": ("6789", ("theo", "yweweler")),
}


@gives("images", "numbers", "classes", "single_targets")
def words(
    *,
    seed: int,
    device: torch.device,
    root: str,
    ways: Ways = 5,
    shots: Count = 1,
    queries: Count = 5,
    train_ways: TrainWays = None,
    augment: Sequence[Literal["shift"]] = (),
    voices: Sequence[Rate] = (1.0,),
    backwards: bool = False,
) -> Source:
    """Tell spoken words apart, the same word by two speakers too: a class is a word by a speaker.

    ``root`` has wav files WORD_SPEAKER_NUMBER.wav. Training also hears each class in other ``voices``, factors of
    frequency (Jaitly and Hinton 2013), and ``backwards``. Each of these is one more class.
    """
    splits, names = {}, {}
    for split, (digits, speakers) in SPLITS.items():
        trained = split == "train"
        heard = [(digit, speaker) for digit in digits for speaker in speakers]
        files = [sorted(Path(root).glob(f"{digit}_{speaker}_*.wav")) for digit, speaker in heard]
        if empty := [f"{digit}_{speaker}" for (digit, speaker), own in zip(heard, files, strict=True) if not own]:
            raise ValueError(f"data.root = {root}: has no file {empty[0]}_*.wav; give the folder of the recordings")
        images = [images_of(own, voice) for voice in (voices if trained else (1.0,)) for own in files]
        images += [image.flip(-1) for image in images] if trained and backwards else []
        counts = torch.tensor([len(own) for own in images], device=device)
        splits[split] = Split(torch.cat(images).to(device), counts.cumsum(0) - counts, counts, int(counts.max()))
        names[split] = [f"{digit} by {speaker}" for digit, speaker in heard]
    names["train"] *= len(splits["train"].starts) // len(names["train"])
    about = {"data": "audio", "license": "CC BY-SA 4.0", "split": "words 0 to 5 by 3 / 1, 6 to 9 by 2 speakers"}
    episode = Episode(ways, shots, queries, train_ways, augment=augment)
    source = episodes(splits, seed, episode, about, names=names)
    return source._replace(references=partial(nearest_pixel, source))


def nearest_pixel(source: Source, split: str, step: int, tasks: range) -> dict[str, Tensor]:
    """The accuracy [tasks] of the nearest mean image, without a network."""
    support, query = source.sample(split, step, tasks)
    members = one_hot(support.y).float()  # [tasks, n, ways]
    means = members.mT @ support.x.flatten(2) / members.sum(1)[..., None]
    right = torch.cdist(query.x.flatten(2), means).argmin(-1) == query.y
    return {"nearest pixel": right.float().mean(-1)}


def images_of(files: Sequence[Path], voice: float = 1.0) -> Tensor:
    """The log-mel spectrograms of wav files, uint8 [files, 1, BANDS, FRAMES]; 255 is the loudest."""
    return torch.stack([(255 * log_mel(*read_wav(file), voice)).round().byte()[None] for file in files])


def read_wav(file: Path) -> tuple[Tensor, int]:
    """The samples of a wav file of 16 bits, in [-1, 1], the mean of its channels; and its rate in Hz."""
    with wave.open(str(file)) as found:
        if found.getsampwidth() != 2 or found.getframerate() < 8000:
            raise ValueError(f"{file}: {found.getparams()}; give 16 bits a sample and 8 kHz or more")
        samples = np.frombuffer(found.readframes(found.getnframes()), "<i2").reshape(-1, found.getnchannels())
        return torch.from_numpy(samples.mean(1, dtype=np.float32) / 32768), found.getframerate()


def log_mel(samples: Tensor, rate: int, voice: float = 1.0) -> Tensor:
    """The loudness [BANDS, FRAMES] of mel bands in [0, 1], low bands first, without silence at both ends.

    The word is stretched to FRAMES frames, so that its speed does not matter. 1 is the loudest band, 0 is RANGE
    decibels below.
    """
    size = round(WINDOW * rate)
    window, hop = torch.hann_window(size), round(HOP * rate)
    spectrum = torch.stft(samples, size, hop, window=window, pad_mode="constant", return_complex=True)
    power = mel_filters(size, rate, voice) @ spectrum.abs().square()
    level = 10 * (power + 1e-10).log10()
    level = level - level.max()  # decibels, 0 for the loudest
    loud = (level.amax(0) > -SILENCE).nonzero().flatten()
    speech = 1 + level[:, loud[0] : loud[-1] + 1].clamp(min=-RANGE) / RANGE
    return interpolate(speech[None], FRAMES, mode="linear", align_corners=True)[0]


@cache
def mel_filters(size: int, rate: int, voice: float) -> Tensor:
    """Triangles [BANDS, size // 2 + 1] at equal distances on the mel scale, with ``voice`` times their frequencies."""
    mels = torch.linspace(mel(LOWEST), mel(HIGHEST), BANDS + 2, dtype=torch.float64)
    edges = voice * 700 * (10 ** (mels / 2595) - 1)  # Hz
    below, centre, above = (edges[i : i + BANDS, None] for i in range(3))
    hertz = torch.linspace(0, rate / 2, size // 2 + 1, dtype=torch.float64)
    sides = torch.minimum((hertz - below) / (centre - below), (above - hertz) / (above - centre))
    return sides.clamp(min=0).float()


def mel(hertz: float) -> float:
    """A frequency on the mel scale, where equal distances sound alike."""
    return 2595 * float(np.log10(1 + hertz / 700))
