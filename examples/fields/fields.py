"""Pictures as functions from a place to a colour: a task is a picture, and an example is one of its pixels."""

from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

import fmaml
from fmaml.data import Metric, Source, task_keys
from fmaml.data.sources.cifar_fs import cifar_fs
from fmaml.rng import fold, uniform
from fmaml.setting_types import Count, FreeOnResume, gives

from .pictures import save_appearing
from .pixels import NUMBERS, SIDE, draw, places, psnr


@gives("numbers", "single_targets")
def fields(
    *,
    seed: int,
    device: torch.device,
    pixels: Count | None = None,
    root: Annotated[str | None, FreeOnResume] = None,
) -> Source:
    """The photographs of CIFAR-FS in the folder ``root``, or drawn pictures without it.

    Returns a source of tasks: places x (down, right) are float32 [tasks, n, 2], and colours y float32 [tasks, n, 3].
    All numbers are in [-1, 1]. The support set has ``pixels`` random pixels, and the query set all others.
    Without ``pixels`` both have all pixels.

    A training task is a random picture, mirrored in half of the tasks. Test task i is photograph i of a shuffled list,
    so none is tested twice.
    """
    if pixels and pixels >= SIDE * SIDE:
        raise ValueError(f"data.pixels = {pixels}: must be below {SIDE * SIDE}, or null for all pixels in both sets")
    photos = None if root is None else cifar_fs(seed=seed, device=device, root=root, download=False)
    pictures = partial(photographs, photos.data, seed) if photos else drawings

    def sample(split: str, step: int, tasks: range) -> fmaml.Task:
        keys = task_keys(seed, split, step, tasks, device)
        every = fmaml.Batch(places(device).expand(len(tasks), -1, -1), pictures(split, keys, tasks))
        if not pixels:
            return fmaml.Task(every, every)
        scores = fold(fold(keys, 0)[:, None], torch.arange(SIDE * SIDE, device=device))
        rows = scores.argsort(1)[..., None].split([pixels, SIDE * SIDE - pixels], 1)
        return fmaml.Task(*(fmaml.Batch(*(part.take_along_dim(row, 1) for part in every)) for row in rows))

    facts = photos.about if photos else {"data": "drawn", "license": "none"}
    about = {key: facts[key] for key in ("data", "files", "split", "license") if key in facts}  # without classes
    seen = f"{pixels} of {SIDE * SIDE} pixels" if pixels else "all pixels"
    task = f"{'photographs' if photos else 'drawings'} from {seen}"
    return Source(
        sample,
        (2,),
        3,
        about | {"task": task, "protocol": f"{task}, measured on {'the others' if pixels else 'the same pixels'}"},
        save_appearing,
        criterion=fmaml.mse,
        metric=Metric("PSNR", psnr, ".2f", more_is_better=True),
        settings=(fmaml.transductive,),
        references=partial(without_network, sample),
        data=photos.data if photos else None,
    )


def photographs(splits: Any, seed: int, split: str, keys: Tensor, tasks: range) -> Tensor:
    """The colours [tasks, 1024, 3] of a photograph for each task."""
    images = splits[split].images  # uint8 [images, 3, 32, 32]
    if split == "train":
        u = uniform(fold(fold(keys, 1)[:, None], torch.arange(2, device=keys.device)))
        chosen = images[(u[:, 0] * len(images)).long()]
        chosen = torch.where(u[:, 1, None, None, None] < 0.5, chosen, chosen.flip(-1))
    else:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        chosen = images[order[torch.tensor(tasks) % len(images)].to(images.device)]
    return chosen.flatten(2).mT.float() / 127.5 - 1


def drawings(split: str, keys: Tensor, tasks: range) -> Tensor:
    """The colours [tasks, 1024, 3] of a drawing for each task."""
    return draw(uniform(fold(fold(keys, 1)[:, None], torch.arange(NUMBERS, device=keys.device))).float())


def without_network(sample: Any, split: str, step: int, tasks: range) -> dict[str, Tensor]:
    """The PSNR [tasks] of the mean colour, and if some pixels are missing, of means weighted by 1 / distance^4."""
    support, query = sample(split, step, tasks)
    guesses = {"mean colour": support.y.mean(1, keepdim=True).expand_as(query.y)}
    if support.x.shape[1] < SIDE * SIDE:
        near = torch.cdist(query.x, support.x) ** -4
        guesses["near pixels"] = near @ support.y / near.sum(2, keepdim=True)
    return {name: torch.stack([*map(psnr, guess, query.y)]) for name, guess in guesses.items()}
