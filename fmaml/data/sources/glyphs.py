"""1,623 built-in characters of 20 drawings each, split like Omniglot. They need no files.

A character is one to four strokes between points near a 3x3 grid. Each stroke is a cubic Bezier curve, straight or
bent, and often starts at the end of the previous one. A drawing perturbs the control points and the whole character,
and has its own pen strength. Random numbers are counter-based (`fmaml.rng.fold`), and arithmetic is float64 up to the
final rounding. So the images are the same on every machine, pixel for pixel.
"""

import functools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from ...rng import fold, uniform
from ...setting_types import KeepsTestTasks, SizeOrRange, TrainBatch, TrainShots, TrainWays, WaysOrRange
from ..class_examples import consecutive_splits
from ..dataset_facts import CHARACTER_SIZE, DRAWINGS_PER_CLASS, OMNIGLOT_CLASSES
from ..episodes import Episode, episodes
from ..preprocessing import CHARACTER_FORM
from ..source import Source

_KEY = 1623  # of all random numbers here, so that characters do not depend on the run's seed
_MAX_STROKES = 4
_DOTS = 32  # dots along a stroke
_HALF_GRID = 8.0  # pixels from the centre of the image to the edge of the grid
_DOT_STD = 0.52  # standard deviation of a dot in pixels
_DRAWINGS_PER_CHUNK = 80  # drawn at once: intermediate arrays fit into the processor's cache


def glyphs(
    *,
    seed: int,
    device: torch.device,
    ways: WaysOrRange = 5,
    shots: SizeOrRange = 1,
    queries: SizeOrRange = 5,
    train_ways: TrainWays = None,
    train_shots: TrainShots = None,
    train_batch: TrainBatch = None,
    rotate: Annotated[tuple[Literal["train", "val", "test"], ...], KeepsTestTasks] = ("train",),
) -> Source:
    """Built-in drawn characters that need no file, split 1,100 / 100 / 423 like Omniglot, 28x28, ink 1 on 0.

    Returns a source of N-way K-shot tasks, see `fmaml.data.episodes.Episode`: x float32 [tasks, n, 1, 28, 28], y int64
    [tasks, n]. In the splits of ``rotate``, each character rotated by 90, 180 and 270 degrees is three more
    classes.

    Images are on ``device``. Tasks depend only on ``seed``. Raises Error if there are too few characters or drawings
    for the tasks.
    """
    splits = consecutive_splits(draw_all_characters().to(device), OMNIGLOT_CLASSES, rotate)
    about = {"data": "glyphs", "rotate": list(rotate)}
    about |= {"split": "1,100/100/423, by their number", "license": "MIT, as fmaml"}
    episode = Episode(ways, shots, queries, train_ways, train_shots, train_batch=train_batch)
    return episodes(splits, seed, episode, about, names=glyph_names(), form=CHARACTER_FORM)


def glyph_names() -> dict[str, list[str]]:
    """The names of each split's characters: their numbers."""
    numbers = iter(range(sum(OMNIGLOT_CLASSES.values())))
    return {split: [f"glyph {next(numbers)}" for _ in range(count)] for split, count in OMNIGLOT_CLASSES.items()}


@functools.cache
def draw_all_characters() -> Tensor:
    """Draw all characters, uint8 [1623, 20, 1, 28, 28], ink 255 on 0. Takes 2 to 3 s, once a process."""
    characters = sum(OMNIGLOT_CLASSES.values())
    control, pen = perturb_strokes(*draw_strokes(characters))
    parts = (part.flatten(0, 1).split(_DRAWINGS_PER_CHUNK) for part in (control, pen))
    chunks = zip(*parts, strict=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = list(pool.map(lambda chunk: render(chunk[0].numpy(), chunk[1].numpy()), chunks))
    return torch.from_numpy(np.concatenate(drawn)).view(
        characters, DRAWINGS_PER_CLASS, 1, CHARACTER_SIZE, CHARACTER_SIZE
    )


def draw_strokes(characters: int) -> tuple[Tensor, Tensor]:
    """Draw the strokes of each character, without variation.

    Returns control points, float64 [characters, strokes, 4, xy], centred, in units of the grid. Also returns float64
    [characters, strokes], 1 for each stroke that exists, else 0.
    """
    draw = functools.partial(_uniform, characters)
    starts, steps = (9 * draw(0, _MAX_STROKES)).long(), 1 + (8 * draw(1, _MAX_STROKES)).long()
    continues = draw(2, _MAX_STROKES) < 0.6
    ends = torch.empty_like(starts)
    for stroke in range(_MAX_STROKES):
        if stroke > 0:
            starts[:, stroke] = torch.where(continues[:, stroke], ends[:, stroke - 1], starts[:, stroke])
        ends[:, stroke] = (starts[:, stroke] + steps[:, stroke]) % 9
    grid = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2)).double()
    first, last = grid[starts], grid[ends]
    chord = last - first
    normal = torch.stack([-chord[..., 1], chord[..., 0]], -1)
    bend = (draw(3, _MAX_STROKES, 1) < 0.6) * (2 * draw(4, _MAX_STROKES, 2) - 1)  # of inner points, in chord lengths
    inner = [first + chord * (i + 1) / 3 + normal * bend[..., i, None] for i in range(2)]
    control = torch.stack([first, *inner, last], -2) + 0.5 * (draw(5, _MAX_STROKES, 4, 2) - 0.5)
    count = (_MAX_STROKES * draw(6, 1).sqrt()).ceil()  # 1, 2, 3, 4 strokes in proportion 1 : 3 : 5 : 7
    present = (torch.arange(_MAX_STROKES) < count).double()
    centre = (present[..., None] * control.mean(-2)).sum(1) / count
    return control - centre[:, None, None], present


def perturb_strokes(control: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Draw 20 random variations of each character, from the result of `draw_strokes`.

    Returns control points [characters, 20, strokes, 4, xy] and pen strengths [characters, 20, strokes]. Control points
    are in pixels from the top left of the image. Missing strokes have pen strength 0.
    """
    jitter = functools.partial(_triangular, len(control))
    control = control[:, None] + 0.25 * jitter(7, _MAX_STROKES, 4, 2) + 0.2 * jitter(8, _MAX_STROKES, 1, 2)
    x, y = (control * (1 + 0.4 * jitter(9, 1, 1, 2))).unbind(-1)
    x = x + 0.3 * jitter(10, 1, 1) * y  # slant
    angle = 0.35 * jitter(11, 1, 1)  # radians
    rotated = torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], -1)
    centre = (CHARACTER_SIZE - 1) / 2 + 3.0 * jitter(12, 1, 1, 2)
    return centre + _HALF_GRID * rotated, present[:, None] * (1 + 0.3 * jitter(13, 1))


def render(control: np.ndarray, pen: np.ndarray) -> np.ndarray:
    """Render images uint8 [n, 28, 28] from control points [n, strokes, 4, xy] in pixels and pen strengths [n, strokes].

    A stroke is a row of Gaussian dots, each a function of the row times one of the column. Dots are weighted by the
    length of curve that they cover, so that ink is even; it saturates at crossings. Uses NumPy because torch splits
    small operations over threads, which wait for each other on a busy machine.
    """
    t = np.linspace(0, 1, _DOTS + 1)
    curve = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1) @ control
    dots = ((curve[:, :, 1:] + curve[:, :, :-1]) / 2).reshape(len(curve), -1, 2)  # [n, dots, xy]
    lengths = np.linalg.norm(np.diff(curve, axis=2), axis=-1)  # [n, strokes, _DOTS]
    weights = (pen[:, :, None] * lengths).reshape(len(curve), -1, 1)
    columns, rows = _dot_profile(dots[..., 0]), _dot_profile(dots[..., 1])  # [n, dots, 28]
    drawn = rows.swapaxes(1, 2) @ (weights * columns)
    return np.rint(255 * np.minimum(drawn, 1)).astype(np.uint8)


def _dot_profile(at: np.ndarray) -> np.ndarray:
    """The ink of dots at positions [...] along one axis of 28 pixels: [..., 28]."""
    return np.exp(-0.5 * ((at[..., None] - np.arange(CHARACTER_SIZE)) / _DOT_STD) ** 2)


def _uniform(characters: int, stream: int, *shape: int) -> Tensor:
    """Draw uniform float64 [characters, *shape] in [0, 1). Streams are independent."""
    counters = torch.arange(characters * math.prod(shape))
    return uniform(fold(fold(_KEY, stream), counters)).view(characters, *shape)


def _triangular(characters: int, stream: int, *shape: int) -> Tensor:
    """Draw triangular float64 [characters, 20, *shape] in (-1, 1), mode 0: the difference of two uniform numbers."""
    first, second = _uniform(characters, stream, DRAWINGS_PER_CLASS, *shape, 2).unbind(-1)
    return first - second
