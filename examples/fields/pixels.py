"""Pixels: their places, their error, and drawn pictures, which are discs on a ground of two colours."""

import math

import torch
from torch import Tensor

SIDE = 32  # pixels
DISCS, SOFT = 4, 0.06  # SOFT: half the width of an edge, about a pixel
NUMBERS = 8 + 6 * DISCS  # that describe a picture


def places(device: torch.device) -> Tensor:
    """The centres of all pixels, row after row, (down, right) in [-1, 1], float32 [1024, 2]."""
    line = (torch.arange(SIDE, device=device) + 0.5) * 2 / SIDE - 1
    return torch.cartesian_prod(line, line)


def psnr(output: Tensor, truth: Tensor) -> Tensor:
    """The peak signal-to-noise ratio in dB of colours in [-1, 1]: 10 log10(2^2 / mean squared error), at most 100."""
    return -10 * ((output.clamp(-1, 1) - truth) / 2).square().mean().clamp(min=1e-10).log10()


def draw(u: Tensor) -> Tensor:
    """Draw pictures: numbers [pictures, NUMBERS] in [0, 1] -> colours [pictures, 1024, 3] in [-1, 1]."""
    at = places(u.device)
    ground, discs = u[:, None, :8], u[:, None, 8:].unflatten(2, (DISCS, 6)).unbind(2)  # each [pictures, 1, ..]
    angle, waves = 2 * math.pi * ground[..., 6], 1 + 5 * ground[..., 7]
    along = at[:, 0] * angle.sin() + at[:, 1] * angle.cos()  # [pictures, 1024]
    share = (0.5 + 0.5 * (waves * along).sin())[..., None]
    picture = ground[..., :3] * share + ground[..., 3:6] * (1 - share)
    for disc in discs:
        centre, radius, colour = 2 * disc[..., :2] - 1, 0.15 + 0.45 * disc[..., 2], disc[..., 3:]
        inside = ((radius - (at - centre).norm(dim=2)) / SOFT).sigmoid()[..., None]
        picture = picture + inside * (colour - picture)
    return 2 * picture - 1
