"""Name wav files by a folder of examples: python -m examples.audio.predict RUN SUPPORT WAV [WAV ...] [--picture PNG]

SUPPORT has one wav file or more of each name: yes.wav, or yes_1.wav and yes_2.wav. --picture draws all files.
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

import fmaml
from fmaml.data.pictures import Axes, plt, save_figure

from .audio import images_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder, or a model.safetensors")
    parser.add_argument("support", type=Path, help="a folder of wav files")
    parser.add_argument("wav", type=Path, nargs="+", help="files to name")
    parser.add_argument("--picture", type=Path, help="draw the files and their names")
    args = parser.parse_args()
    named: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(args.support.glob("*.wav")):
        named[name_of(file)].append(file)
    labels, sureness = predict(args.run, named, args.wav)
    for file, label, sure in zip(args.wav, labels, sureness, strict=True):
        print(f"{file}: {label}, {sure:.0%}")
    if args.picture:
        draw(args.picture, named, args.wav, labels)


def predict(run: str, named: dict[str, list[Path]], files: list[Path]) -> tuple[list[str], list[float]]:
    """The name of each wav file, and its probability, by the wav files of each name."""
    adapted = fmaml.load(run).adapt({name: images_of(own) / 255 for name, own in named.items()})
    labels, probabilities = adapted.predict(images_of(files) / 255)
    return labels, probabilities.amax(1).tolist()


def name_of(file: Path) -> str:
    """The file's name without a number at its end."""
    return re.sub(r"_\d+$", "", file.stem)


def draw(picture: Path, named: dict[str, list[Path]], files: list[Path], labels: list[str]) -> None:
    """Draw the first example of each name in the first column, and the files beside it, in rows of equal length."""
    columns = 2 + -(-len(files) // len(named))
    size, widths = (1.15 * columns, 1.05 * len(named) + 0.3), [1, 0.3, *[1] * (columns - 2)]
    figure, axes = plt.subplots(
        len(named), columns, figsize=size, width_ratios=widths, squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for row, (name, own) in zip(axes, named.items(), strict=True):
        show(row[0], own[0], name, "black")
    for axis, file, label in zip(axes[:, 2:].flat, files, labels, strict=False):
        known = name_of(file) in named
        show(axis, file, f"→ {label}", ("tab:green" if name_of(file) == label else "tab:red") if known else "black")
    figure.suptitle("One example of each name (left), and wav files with their predicted names", fontsize=10)
    save_figure(figure, picture)


def show(axis: Axes, file: Path, title: str, color: str) -> None:
    """Draw a log-mel spectrogram: time to the right, frequency upwards."""
    axis.imshow(images_of([file])[0, 0].numpy(), origin="lower", cmap="magma", aspect="auto")
    axis.set_title(title, fontsize=8, pad=3, color=color)


if __name__ == "__main__":
    main()
