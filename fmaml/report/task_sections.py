"""The sections of a run's page about single tasks: what was asked and answered, what was confused, what moved."""

import math
from collections.abc import Iterable

import torch

from ..config.build import Experiment
from ..evaluation import trajectory_of
from ..losses import IGNORED
from ..meta_testing.predictions import Confusion, NamedTask
from ..tree import take
from ..types import Params, Task, Theta
from .charts import Curve, bar_chart, ends_of_intervals, line_chart
from .html_page import escape, folded, paragraph, preformatted, section
from .inline_images import picture_of
from .scales import scale_of

MOST_CLASSES, MOST_SUPPORT, MOST_QUERIES = 10, 3, 5  # of a task that are shown
MOST_BARS = 24  # of a chart of layers
MOST_SAMPLE_CHARACTERS = 20_000
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
    """Tasks of classes: of each class its support examples, and its queries with what was said and how surely."""
    how = (
        "Left the support set, right queries: each with the class that it was given and that class's probability, "
        "green where it is right. All queries of a task go through the network together."
    )
    return section("Test tasks", paragraph(how, "quiet"), *(classes_of_task(i, *task) for i, task in enumerate(tasks)))


def classes_of_task(number: int, task: Task, names: list[str], probabilities: torch.Tensor) -> str:
    """One task: a row a class."""
    confidence, said = probabilities.max(-1)
    answers = list(zip(task.query.y.tolist(), said.tolist(), confidence.tolist(), strict=True))
    asked = [(truth, guess) for truth, guess, _ in answers if truth != IGNORED]
    right = sum(truth == guess for truth, guess in asked)
    rows: list[str] = []
    for label, name in enumerate(names[:MOST_CLASSES]):
        seen = (task.support.y == label).nonzero().flatten().tolist()[:MOST_SUPPORT]
        queries = [i for i, (truth, _, _) in enumerate(answers) if truth == label][:MOST_QUERIES]
        support = "".join(picture_of(task.support.x[i], escape(name)) for i in seen)
        told = "".join(
            _answer(
                picture_of(task.query.x[i], escape(name)), names[answers[i][1]], answers[i][2], answers[i][1] == label
            )
            for i in queries
        )
        rows.append(
            f'<div class="class"><b>{escape(name)}</b><div class="examples">{support}</div>'
            f'<div class="examples">{told}</div></div>'
        )
    left_out = len(names) - MOST_CLASSES
    note = paragraph(f"{left_out} more classes are not shown.", "quiet") if left_out > 0 else ""
    heading = f"<h3>Task {number}: {right} of {len(asked)} queries right</h3>"
    head = "<small>class</small><small>support</small><small>queries, as they were named</small>"
    return f'{heading}\n<div class="task">{head}{"".join(rows)}</div>{note}'


def _answer(picture: str, name: str, confidence: float, is_right: bool) -> str:
    sure = f"{confidence:.0%}" if math.isfinite(confidence) else "not finite"
    kind, mark = ("right", "✓") if is_right else ("wrong", "✗")
    return f'<figure class="{kind}">{picture}<figcaption>{mark} {escape(name)} {sure}</figcaption></figure>'


def confusions_section(pairs: list[Confusion], tasks: int) -> str:
    """The pairs of classes that were taken for each other most often."""
    items = "".join(
        f'<li class="pair"><div class="examples">{"".join(picture_of(x, "") for x in pair.pictures)}</div><div>'
        f"<b>{escape(pair.names[0])} / {escape(pair.names[1])}</b><small>{pair.mistakes} of {pair.queries} queries, in "
        f"{pair.tasks} task{'s' * (pair.tasks != 1)}</small></div></li>"
        for pair in pairs
    )
    how = (
        f"Over {tasks} test tasks: queries of either class that were taken for the other, of all queries of both in "
        "tasks that had both. Ordered by the low end of the 95 % interval of that rate."
    )
    return section("Most confused classes", paragraph(how, "quiet"), f'<ul class="pairs">{items}</ul>') if pairs else ""


def layers_section(sums: dict[str, tuple[float, float]], steps: int, tasks: int) -> str:
    """How far each parameter or layer moved, relative to its size."""
    if not sums:
        return ""
    grouped = sums if len(sums) <= MOST_BARS else by_layer(sums)
    moved = {name: (math.sqrt(change), math.sqrt(size)) for name, (change, size) in grouped.items()}
    largest = sorted(moved, key=lambda name: -_relative(*moved[name]))[:MOST_BARS]
    bars = [(name, _relative(*moved[name]), _moved(*moved[name])) for name in moved if name in largest]
    left_out = len(moved) - len(bars)
    how = (
        f"The norm of φ − θ after {steps} inner step{'s' * (steps != 1)}, relative to that of θ, over {tasks} test "
        "tasks." + (f" {left_out} layers that moved less are not shown." if left_out else "")
    )
    return section("What was adapted", paragraph(how, "quiet"), bar_chart("change by layer", bars))


def by_layer(sums: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The sums of all parameters of a layer, whose name is theirs without its last part."""
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
    """Tasks of values: the network over x before and after adaptation, or where x has many numbers, y against y."""
    stacked = experiment.source.sample("test", 0, range(tasks))
    draw = _function if experiment.source.inputs == (1,) else _predicted
    parts: list[str] = []
    for i in range(tasks):
        task = take(stacked, i)
        phis = trajectory_of(experiment.algorithm, theta, task.support, steps)
        ends = (
            {"not adapted": phis[0], f"after {len(phis) - 1} inner steps": phis[-1]}
            if len(phis) > 1
            else {"adapted": phis[0]}
        )
        parts.append(f"<h3>Task {i}</h3>" + draw(experiment, task, ends))
    return section("Test tasks", *parts)


def _function(experiment: Experiment, task: Task, ends: dict[str, Params]) -> str:
    """The network's y over x, and the examples of the task."""
    x = torch.cat([task.support.x, task.query.x]).flatten()
    grid = torch.linspace(float(x.min()), float(x.max()), 100, device=x.device)[:, None]
    colors = (2, 0)[-len(ends) :]
    curves = [
        Curve(label, grid.flatten().tolist(), experiment.model.apply(phi, grid)[:, 0].tolist(), (), color)
        for color, (label, phi) in zip(colors, ends.items(), strict=True)
    ]
    for label, color, batch in (("query set", 3, task.query), ("support set", 1, task.support)):
        curves.append(Curve(label, batch.x.flatten().tolist(), batch.y[:, 0].tolist(), (), color, "raw points"))
    y = scale_of(ends_of_intervals(curves))
    return line_chart("y over x", "x", curves, scale_of(grid.flatten().tolist()), y)


def _predicted(experiment: Experiment, task: Task, ends: dict[str, Params]) -> str:
    """The predicted against the true first number of the query set's y."""
    y = task.query.y.flatten(1)[:, 0].tolist()
    colors = (2, 0)[-len(ends) :]
    curves = [
        Curve(label, y, experiment.model.apply(phi, task.query.x).flatten(1)[:, 0].tolist(), (), color, "raw points")
        for color, (label, phi) in zip(colors, ends.items(), strict=True)
    ]
    x = scale_of(y)
    curves.append(Curve("as it should be", [x.low, x.high], [x.low, x.high], (), 3, "curve dashed"))
    return line_chart(
        "predicted y", "true y, standardised (upwards: predicted)", curves, x, scale_of(ends_of_intervals(curves))
    )


def samples_section(text: str) -> str:
    """What the model wrote of unseen languages."""
    shown = text[:MOST_SAMPLE_CHARACTERS]
    return section(
        "Test tasks", folded("what the network writes, before and after adaptation (samples.txt)", preformatted(shown))
    )
