"""Built-in characters for anyone without files: 1,623 of them, 20 drawings each, split as Omniglot is.

A character is one to four strokes between the points of a loose 3x3 grid, each a cubic Bezier curve, straight
or bent; a stroke often goes on where the one before ended. A drawing moves the control points and the whole a
little and takes its own pen. All random numbers are counter-based (`bits.fold`) and all arithmetic is float64
up to the last rounding, so everyone has the same alphabet, pixel for pixel.
"""

import functools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...ranges import Count, Ways
from ..episodes import consecutive_splits, episodes
from ..published import CHARACTER_SIZE, DRAWINGS_PER_CLASS, OMNIGLOT_CLASSES
from ..rng import fold, uniform
from ..source import Source

ALPHABET = 1623  # the key of everything drawn here, whatever the seed of the run
STROKES = 4  # at most
DOTS = 32  # of the pen along a stroke
REACH = 8.0  # pixels from the middle of the image to the edge of the grid
NIB = 0.52  # pixels: the standard deviation of a dot


def glyphs(
    *,
    seed: int,
    device: torch.device,
    ways: Ways | tuple[Ways, Ways] = 5,
    shots: Count | tuple[Count, Count] = 1,
    queries: Count | tuple[Count, Count] = 5,
    train_ways: Ways | None = None,
    rotate: tuple[Literal["train", "val", "test"], ...] = ("train",),
) -> Source:
    """Built-in drawn characters that need no file, split 1,100 / 100 / 423 as Omniglot is, 28x28, ink 1 on 0.

    ``train_ways`` classes are in each training task, by default ``ways``.
    The characters of the splits named by ``rotate`` also count turned by 90, 180 and 270 degrees.
    """
    splits = consecutive_splits(drawings().to(device), OMNIGLOT_CLASSES, rotate)
    about = {"data": "glyphs", "rotate": list(rotate), "split": "1,100/100/423, by their number"}
    return episodes(splits, seed=seed, ways=ways, shots=shots, queries=queries, about=about, train_ways=train_ways)


@functools.cache
def drawings() -> Tensor:
    """All of them, uint8 [1623, 20, 1, 28, 28], ink 255 on 0: two or three seconds, once a process."""
    characters = sum(OMNIGLOT_CLASSES.values())
    control, pen = by_hand(*alphabet(characters))
    few = 80  # drawings at a time: what is in flight then stays in the processor's cache
    chunks = zip(control.flatten(0, 1).split(few), pen.flatten(0, 1).split(few), strict=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = list(pool.map(lambda chunk: ink(chunk[0].numpy(), chunk[1].numpy()), chunks))
    return torch.from_numpy(np.concatenate(drawn)).view(
        characters, DRAWINGS_PER_CLASS, 1, CHARACTER_SIZE, CHARACTER_SIZE
    )


def alphabet(characters: int) -> tuple[Tensor, Tensor]:
    """The ideal forms: control points [characters, strokes, 4, xy], centred, in units of the grid; and which
    strokes there are, [characters, strokes] of 0 or 1."""
    draw = functools.partial(_uniform, characters)
    starts, leaps = (9 * draw(0, STROKES)).long(), 1 + (8 * draw(1, STROKES)).long()
    goes_on = draw(2, STROKES) < 0.6
    ends = torch.empty_like(starts)
    for stroke in range(STROKES):
        if stroke > 0:
            starts[:, stroke] = torch.where(goes_on[:, stroke], ends[:, stroke - 1], starts[:, stroke])
        ends[:, stroke] = (starts[:, stroke] + leaps[:, stroke]) % 9
    grid = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2)).double()
    first, last = grid[starts], grid[ends]
    chord = last - first
    normal = torch.stack([-chord[..., 1], chord[..., 0]], -1)
    bent = (draw(3, STROKES, 1) < 0.6) * (2 * draw(4, STROKES, 2) - 1)  # the two inner control points, in chords
    inner = [first + chord * (i + 1) / 3 + normal * bent[..., i, None] for i in range(2)]
    control = torch.stack([first, *inner, last], -2) + 0.5 * (draw(5, STROKES, 4, 2) - 0.5)
    count = (STROKES * draw(6, 1).sqrt()).ceil()  # 1, 2, 3, 4 strokes in proportion 1 : 3 : 5 : 7
    present = (torch.arange(STROKES) < count).double()
    middle = (present[..., None] * control.mean(-2)).sum(1) / count
    return control - middle[:, None, None], present


def by_hand(control: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Twenty drawings of each character: control points [characters, 20, strokes, 4, xy] in pixels from the
    top left of the image, and the ink of the pen [characters, 20, strokes], 0 where there is no stroke."""
    shake = functools.partial(_triangular, len(control))
    control = control[:, None] + 0.25 * shake(7, STROKES, 4, 2) + 0.2 * shake(8, STROKES, 1, 2)
    x, y = (control * (1 + 0.4 * shake(9, 1, 1, 2))).unbind(-1)
    x = x + 0.3 * shake(10, 1, 1) * y  # a slant
    turn = 0.35 * shake(11, 1, 1)  # radians
    turned = torch.stack([turn.cos() * x - turn.sin() * y, turn.sin() * x + turn.cos() * y], -1)
    middle = (CHARACTER_SIZE - 1) / 2 + 3.0 * shake(12, 1, 1, 2)
    return middle + REACH * turned, present[:, None] * (1 + 0.3 * shake(13, 1))


def ink(control: np.ndarray, pen: np.ndarray) -> np.ndarray:
    """Control points [n, strokes, 4, xy] in pixels and pens [n, strokes] to drawings, uint8 [n, 28, 28].

    A stroke is a row of round dots (Gaussians: a function of the row times one of the column), each weighed
    by the length of curve that it stands for, so that ink lies evenly; where strokes cross, ink saturates.
    NumPy, as torch would split each small step over threads, which on a busy machine wait for each other.
    """
    t = np.linspace(0, 1, DOTS + 1)
    curve = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1) @ control
    dots = ((curve[:, :, 1:] + curve[:, :, :-1]) / 2).reshape(len(curve), -1, 2)  # [n, dots, xy]
    lengths = np.linalg.norm(np.diff(curve, axis=2), axis=-1)  # [n, strokes, DOTS]
    weights = (pen[:, :, None] * lengths).reshape(len(curve), -1, 1)
    columns, rows = _nib(dots[..., 0]), _nib(dots[..., 1])  # [n, dots, 28]
    drawn = rows.swapaxes(1, 2) @ (weights * columns)
    return np.rint(255 * np.minimum(drawn, 1)).astype(np.uint8)


def _nib(at: np.ndarray) -> np.ndarray:
    """The pen's ink over the 28 pixels of one axis, for dots at [...]: [..., 28]."""
    return np.exp(-0.5 * ((at[..., None] - np.arange(CHARACTER_SIZE)) / NIB) ** 2)


def _uniform(characters: int, use: int, *shape: int) -> Tensor:
    """Float64 [characters, *shape] in [0, 1); each use has a number, and so random numbers of its own."""
    counters = torch.arange(characters * math.prod(shape))
    return uniform(fold(fold(ALPHABET, use), counters)).view(characters, *shape)


def _triangular(characters: int, use: int, *shape: int) -> Tensor:
    """Float64 [characters, 20, *shape] in (-1, 1), most often near 0: the difference of two uniforms."""
    first, second = _uniform(characters, use, DRAWINGS_PER_CLASS, *shape, 2).unbind(-1)
    return first - second
