"""Meta-train in a script, and film unseen viscosities: python -m examples.burgers.solve [META_STEPS]."""

import sys
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

import fmaml
from fmaml import Params
from fmaml.data.pictures import after, plt
from fmaml.losses import Apply

from .burgers import END, burgers
from .exact import exact
from .network import field

STEPS = 5  # inner
FRAMES = 21


def solve(meta_steps: int = 300) -> tuple[Apply, dict[float, list[Params]]]:
    """Meta-train. Returns the network, and for three viscosities the parameters after 0 to 5 inner steps."""
    source = burgers(seed=0, device=torch.device("cpu"), points=100, queries=100)
    model = field(inputs=source.inputs, outputs=source.outputs)
    assert source.loss is not None
    algorithm = fmaml.meta_sgd(source.loss(model.apply), inner_lr=0.01, steps=STEPS)
    optimizer = fmaml.chain(fmaml.clip_by_global_norm(1.0), fmaml.adam(3e-3))
    state = fmaml.init_state(algorithm, optimizer, model.init(torch.Generator().manual_seed(0)))
    for step in range(meta_steps):
        state, metrics = fmaml.meta_step(algorithm, optimizer, state, source.sample("train", step, range(4)))
        if step % 50 == 0:
            print(f"meta-step {step}: query loss {float(metrics['query_loss']):.4f}")
    unseen = source.sample("test", 0, range(32))
    error = fmaml.evaluate(algorithm, source.settings[0](model.apply, source.metric.fn), state.theta, unseen).mean(0)
    for k, mean in enumerate(error.tolist()):
        print(f"relative error after {k} inner steps: {mean:.4f}")
    assert algorithm.trajectory is not None
    solved = {}
    for viscosity in (0.006, 0.015, 0.045):
        support = fmaml.Batch(unseen.support.x[0].clone(), unseen.support.y[0])
        support.x[:, 2] = viscosity
        solved[viscosity] = algorithm.trajectory(state.theta, support)
    return model.apply, solved


def film(apply: Apply, solved: dict[float, list[Params]], file: Path) -> None:
    """Write a GIF: a panel for each viscosity, exact and after 0 and all inner steps, while t goes from 0 to 0.5."""
    figure, axes = plt.subplots(1, len(solved), figsize=(9, 3), sharey=True, layout="constrained", dpi=75)
    x = torch.linspace(-1, 1, 201)[:, None]
    drawn = []
    for axis, (viscosity, phis) in zip(axes, solved.items(), strict=True):
        axis.set(xlim=(-1, 1), ylim=(-1.2, 1.2), title=f"viscosity {viscosity:g}", xlabel="x")
        lines = [axis.plot([], [], "r-", linewidth=3, alpha=0.5, label="exact")[0]]
        for step, style in ((0, ":k"), (len(phis) - 1, "--b")):
            lines += axis.plot([], [], style, linewidth=1.5, label=after(step))
        drawn.append((viscosity, [None, phis[0], phis[-1]], lines))
    axes[0].legend(fontsize=7, loc="upper right")

    frames = []
    for time in torch.linspace(0, END, FRAMES).tolist():
        figure.suptitle(f"u at t = {time:.2f}", fontsize=10)
        for viscosity, phis, lines in drawn:
            points = torch.cat([x, torch.full_like(x, time), torch.full_like(x, viscosity)], 1)
            for phi, line in zip(phis, lines, strict=True):
                line.set_data(x[:, 0], (exact(points) if phi is None else apply(phi, points))[:, 0])
        figure.savefig(written := BytesIO(), format="png")
        frames.append(Image.open(written).convert("RGB"))
    colors = frames[-1].quantize(16)  # the same for all frames, so that only what moves is stored
    frames = [each.quantize(palette=colors, dither=Image.Dither.NONE) for each in frames]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=150, loop=0)


if __name__ == "__main__":
    film(*solve(*map(int, sys.argv[1:])), Path("burgers.gif"))
