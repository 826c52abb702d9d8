"""Made recordings in place of spoken words: wav files of tones."""

import math
import wave
from pathlib import Path

import torch

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


def tones(*hertz: float, rate: int = 8000, seconds: float = 0.2) -> torch.Tensor:
    """Pure tones one after the other."""
    time = torch.arange(round(rate * seconds)) / rate
    return torch.cat([0.5 * torch.sin(2 * math.pi * one * time) for one in hertz])


def write_wav(file: Path, samples: torch.Tensor, rate: int = 8000, channels: int = 1) -> Path:
    with wave.open(str(file), "wb") as made:
        made.setnchannels(channels)
        made.setsampwidth(2)
        made.setframerate(rate)
        made.writeframes((32767 * samples).short().numpy().tobytes())
    return file


def write_recordings(folder: Path) -> Path:
    """Words of two tones by six voices, seven times each, in noise."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = torch.Generator().manual_seed(0)
    for word in range(10):
        for pitch, speaker in enumerate(SPEAKERS):
            said = tones(300 + 200 * word, 2600 - 200 * word) * (0.5 + 0.05 * pitch)
            said = said + tones(*[200 + 80 * pitch] * 2) * 0.3
            for number in range(7):
                heard = said + 0.002 * torch.randn(len(said), generator=noise)
                write_wav(folder / f"{word}_{speaker}_{number}.wav", heard)
    return folder
