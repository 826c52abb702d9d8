"""The sections of a run's page that need its model: sample tasks, confusions, change of each parameter."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..config.build import Experiment
from ..evaluation import trajectory_of
from ..files.figures import Axes, Figure
from ..files.plain_text import counted
from ..losses import IGNORED
from ..meta_testing.predictions import Confusion, NamedTask
from ..tree import take
from ..types import Params, Task, Theta
from .curves import FIGURE_SIZE
from .html_page import bars, escape, folded, paragraph, png_tag, preformatted, section
from .page_figure import page_figure

MOST_CLASSES, MOST_SUPPORT, MOST_QUERIES = 10, 3, 5  # shown of a task
LARGEST_PICTURE = 64  # pixels; a page with a hundred larger ones would be megabytes
MOST_LAYERS = 24  # shown as bars
MOST_SAMPLE_CHARACTERS = 20_000
END_COLORS = ("tab:gray", "tab:blue")  # before and after adaptation
STYLE_OF_TASKS = """
.task { display: grid; grid-template-columns: minmax(5rem, 9rem) auto minmax(0, 1fr); gap: .6rem 1.2rem;
  align-items: start; margin: .4rem 0 1.4rem; }
.task > b { font-weight: 600; overflow-wrap: anywhere; font-size: .9rem; }
.task > small { color: var(--quiet); font-size: .8125rem; }
.class { display: contents; }
.examples { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0; }
.examples figure { margin: 0; width: 5.2rem; }
.examples img, .signal { display: block; width: 3.4rem; height: 3.4rem; object-fit: contain; background: var(--paper);
  border: 1px solid var(--line); border-radius: 5px; }
.examples figure img, .examples figure .signal { border-width: 2px; border-color: currentColor; }
.signal path { fill: none; stroke: #1b1e24; stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.signal { width: 5.2rem; }
.examples figcaption { font-size: .75rem; line-height: 1.25; color: inherit; overflow-wrap: anywhere; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .8rem 1.2rem; padding: 0;
  margin: 0 0 .75rem; list-style: none; }
.pair { display: grid; grid-template-columns: auto 1fr; gap: .6rem; align-items: center; }
.pair small { color: var(--quiet); font-size: .8125rem; display: block; }
.pair b { font-weight: 600; font-size: .9rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  .task { grid-template-columns: minmax(0, 1fr); gap: .35rem; }
  .task > small { display: none; }
  .class { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: .3rem .8rem; padding: .5rem 0;
    border-top: 1px solid var(--line); }
  .class > b { grid-column: 1 / -1; }
  .examples figure { width: 4.6rem; }
}
"""


def tasks_section(tasks: Iterable[NamedTask]) -> str:
    """Tasks of classes: for each class its support examples, and its queries with the predicted class."""
    how = (
        "Left: the support set. Right: queries with the predicted class and its probability, green if correct. "
        "All queries of a task are predicted together."
    )
    return section("Test tasks", paragraph(how, "quiet"), *(classes_of_task(i, *task) for i, task in enumerate(tasks)))


def classes_of_task(number: int, task: Task, names: list[str], probabilities: Tensor) -> str:
    """One task, with one row per class."""
    confidence, predicted = probabilities.max(-1)
    answers = list(zip(task.query.y.tolist(), predicted.tolist(), confidence.tolist(), strict=True))
    asked = [(truth, guess) for truth, guess, _ in answers if truth != IGNORED]
    right = sum(truth == guess for truth, guess in asked)
    rows: list[str] = []
    for label, name in enumerate(names[:MOST_CLASSES]):
        seen = (task.support.y == label).nonzero().flatten().tolist()[:MOST_SUPPORT]
        queries = [i for i, (truth, _, _) in enumerate(answers) if truth == label][:MOST_QUERIES]
        support = "".join(picture_of(task.support.x[i], name) for i in seen)
        predictions = "".join(
            _answer(picture_of(task.query.x[i], name), names[answers[i][1]], answers[i][2], answers[i][1] == label)
            for i in queries
        )
        rows.append(
            f'<div class="class"><b>{escape(name)}</b><div class="examples">{support}</div>'
            f'<div class="examples">{predictions}</div></div>'
        )
    left_out = len(names) - MOST_CLASSES
    note = paragraph(f"{left_out} more classes are not shown.", "quiet") if left_out > 0 else ""
    heading = f"<h3>Task {number}: {right} of {len(asked)} queries right</h3>"
    head = "<small>class</small><small>support</small><small>queries, with predictions</small>"
    return f'{heading}\n<div class="task">{head}{"".join(rows)}</div>{note}'


def _answer(picture: str, name: str, confidence: float, is_right: bool) -> str:
    sure = f"{confidence:.0%}" if math.isfinite(confidence) else "not finite"
    kind, mark = ("right", "✓") if is_right else ("wrong", "✗")
    return f'<figure class="{kind}">{picture}<figcaption>{mark} {escape(name)} {sure}</figcaption></figure>'


def picture_of(x: Tensor, alt: str) -> str:
    """One example: an image [1 or 3, height, width] in [0, 1] or a signal [channels, length]."""
    return image_tag(x, alt) if x.ndim == 3 else signal_line(x, alt)


def image_tag(x: Tensor, alt: str) -> str:
    """An image; one channel is drawn as black on white, because ink is 1."""
    pixels = (255 * x.detach().float().cpu().nan_to_num().clamp(0, 1)).byte().numpy()
    shown = 255 - pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels[:3].transpose(1, 2, 0))
    return png_tag(Image.fromarray(shown), alt, LARGEST_PICTURE)


def signal_line(x: Tensor, alt: str) -> str:
    """The first channel of a signal as a line of at most 200 points."""
    values = x[0].detach().float().cpu().nan_to_num()
    values = values[:: max(1, len(values) // 100)]
    low, high = float(values.min()), float(values.max())
    places = [
        f"{100 * i / max(1, len(values) - 1):.1f} {38 - 36 * (v - low) / ((high - low) or 1):.1f}"
        for i, v in enumerate(values.tolist())
    ]
    path = f'<path d="M{"L".join(places)}"/>'
    return f'<svg class="signal" viewBox="0 0 100 40" role="img" aria-label="{escape(alt)}">{path}</svg>'


def confusions_section(pairs: list[Confusion], tasks: int) -> str:
    """The most confused pairs of classes."""
    items = "".join(
        f'<li class="pair"><div class="examples">{"".join(picture_of(x, "") for x in pair.pictures)}</div><div>'
        f"<b>{escape(pair.names[0])} / {escape(pair.names[1])}</b><small>{pair.mistakes} of {pair.queries} queries, in "
        f"{counted(pair.tasks, 'task')}</small></div></li>"
        for pair in pairs
    )
    how = (
        f"Over {tasks} test tasks: the queries of either class that were taken for the other, out of all queries of "
        "both in tasks with both. Sorted by the lower end of the rate's 95 % interval."
    )
    return section("Most confused classes", paragraph(how, "quiet"), f'<ul class="pairs">{items}</ul>') if pairs else ""


def layers_section(sums: dict[str, tuple[float, float]], steps: int, tasks: int) -> str:
    """The change of each parameter or layer, relative to its norm."""
    if not sums:
        return ""
    grouped = sums if len(sums) <= MOST_LAYERS else by_layer(sums)
    moved = {name: (math.sqrt(change), math.sqrt(size)) for name, (change, size) in grouped.items()}
    largest = sorted(moved, key=lambda name: -_relative(*moved[name]))[:MOST_LAYERS]
    rows = [(name, _relative(*moved[name]), _moved(*moved[name])) for name in moved if name in largest]
    left_out = len(moved) - len(rows)
    how = f"‖φ − θ‖ / ‖θ‖ after {counted(steps, 'inner step')}, over {tasks} test tasks." + (
        f" {left_out} layers that moved less are not shown." if left_out else ""
    )
    return section("Change by adaptation", paragraph(how, "quiet"), bars("change by layer", rows))


def by_layer(sums: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The sums over the parameters of each layer; the last part of a parameter's name is dropped."""
    found: dict[str, tuple[float, float]] = {}
    for name, (change, size) in sums.items():
        layer = name.rpartition(".")[0] or name
        old = found.get(layer, (0.0, 0.0))
        found[layer] = (old[0] + change, old[1] + size)
    return found


def _relative(change: float, size: float) -> float:
    return change / size if size else 0.0


def _moved(change: float, size: float) -> str:
    if not math.isfinite(change):
        return "not finite"
    if change == 0:
        return "not adapted"
    return f"{change / size:.2%}" if size else f"{change:.3g}, from zero"


@torch.no_grad()
def functions_section(experiment: Experiment, theta: Theta, steps: int, tasks: int) -> str:
    """Plots of regression tasks: y over x before and after adaptation, or predicted against true y for other x."""
    stacked = experiment.source.sample("test", 0, range(tasks))
    draw = draw_function if experiment.source.inputs == (1,) else draw_predictions
    parts: list[str] = []
    for i in range(tasks):
        task = take(stacked, i)
        phis = trajectory_of(experiment.algorithm, theta, task.support, steps)
        ends = {"adapted": phis[-1]}
        if len(phis) > 1:
            ends = {"not adapted": phis[0], f"after {counted(len(phis) - 1, 'inner step')}": phis[-1]}
        figure = Figure(FIGURE_SIZE, layout="constrained")
        axes = figure.subplots()
        draw(axes, experiment, task, ends)
        axes.grid(alpha=0.3)
        parts.append(f"<h3>Task {i}</h3>\n{page_figure(figure, f'task {i}: {axes.get_ylabel()}')}")
    return section("Test tasks", *parts)


def draw_function(axes: Axes, experiment: Experiment, task: Task, ends: dict[str, Params]) -> None:
    """Draw the network's y over x, and the examples of the task."""
    x = torch.cat([task.support.x, task.query.x]).flatten()
    grid = torch.linspace(float(x.min()), float(x.max()), 100, device=x.device)[:, None]
    for color, (label, phi) in zip(END_COLORS[-len(ends) :], ends.items(), strict=True):
        axes.plot(grid.flatten().tolist(), experiment.model.apply(phi, grid)[:, 0].tolist(), color=color, label=label)
    for label, color, batch in (("query set", "tab:green", task.query), ("support set", "tab:orange", task.support)):
        axes.plot(batch.x.flatten().tolist(), batch.y[:, 0].tolist(), "o", markersize=4, color=color, label=label)
    axes.set(xlabel="x", ylabel="y")


def draw_predictions(axes: Axes, experiment: Experiment, task: Task, ends: dict[str, Params]) -> None:
    """Draw the first number of the query set's y, predicted against true."""
    y = task.query.y.flatten(1)[:, 0].tolist()
    for color, (label, phi) in zip(END_COLORS[-len(ends) :], ends.items(), strict=True):
        predicted = experiment.model.apply(phi, task.query.x).flatten(1)[:, 0].tolist()
        axes.plot(y, predicted, "o", markersize=4, color=color, label=label)
    axes.plot([min(y), max(y)], [min(y), max(y)], "--", color="tab:green", label="exact")
    axes.set(xlabel="true y, standardised", ylabel="predicted y")


def samples_section(text: str) -> str:
    """Text generated by the model in unseen languages."""
    shown = text[:MOST_SAMPLE_CHARACTERS]
    return section(
        "Test tasks", folded("generated text, before and after adaptation (samples.txt)", preformatted(shown))
    )
