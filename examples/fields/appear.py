"""Fit pictures in a few steps: python -m examples.fields.appear RUN [PICTURE ..]

RUN is a folder of `fmaml run`. Without pictures of your own, it takes the first of the run's test pictures. Writes
fields.png: the field of each picture step by step, beside a random start after the same number of steps.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

import fmaml
from fmaml.config.load import load_config
from fmaml.data.pictures import after
from fmaml.tree import take

from .fields import fields
from .pictures import MOST, save_rows, whole
from .pixels import SIDE, places
from .siren import siren

CPU = torch.device("cpu")
RATE = 0.1  # of a random start: the best of those in docs/fields.md


def read(file: str) -> Tensor:
    """The colours [1024, 3] of a picture's central square, in [-1, 1]."""
    with Image.open(file) as picture:
        small = ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).reshape(-1, 3) / 127.5 - 1


def main(run: str, *files: str) -> None:
    config = load_config(str(Path(run) / "config.yaml"))
    data, network = ({k: v for k, v in config[part].items() if k != "name"} for part in ("data", "model"))
    if files:
        pictures = [read(file) for file in files]
    else:
        tasks = fields(seed=config["seed"], device=CPU, **data).sample("test", 0, range(MOST))
        pictures = [whole(take(tasks, i)) for i in range(MOST)]

    learner, steps, x = fmaml.load(run, trust=True), config["algorithm"]["steps"], places(CPU)
    model = siren(inputs=(2,), outputs=3, **network)
    scratch = fmaml.scratch(fmaml.supervised(model.apply, fmaml.mse), inner_lr=RATE, steps=steps)
    random = scratch.init(model.init(torch.Generator().manual_seed(config["seed"])))
    rows = []
    for picture in pictures:
        alone = model.apply(scratch.adapt(random, fmaml.Batch(x, picture)), x)
        rows.append([alone, *(learner.adapt(x, picture, steps=k).outputs(x) for k in range(steps + 1))])
    titles = [f"random start,\n{after(steps)}", "theta", *(after(k) for k in range(1, steps + 1))]
    save_rows(rows, titles, pictures, Path("fields.png"))


if __name__ == "__main__":
    main(*sys.argv[1:])
