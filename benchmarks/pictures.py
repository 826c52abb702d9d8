"""Draw docs/speed.png and docs/peers.png from the results of vmap_vs_loop.py and peers.py.

    python benchmarks/pictures.py [--results FOLDER or FILE] [--out docs]

speed.png has the time per task against the meta-batch, one panel per network; peers.png the time of the same
meta-gradient in every library. "_cuda" is appended to the name for a GPU.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from fmaml.files.figures import save_figure

TOP = Path(__file__).parent.parent
SAME = 1e-9  # as in peers.py
COLORS = {"loop": "tab:orange", "vmap": "tab:blue", "compiled": "tab:green"}
LABELS = {"loop": "looped", "vmap": "vmapped", "compiled": "vmapped and compiled"}
STYLES: dict[int, dict[str, Any]] = {  # by inner steps
    1: {"marker": "o", "linestyle": "-"},
    5: {"marker": "s", "linestyle": "--"},
    20: {"marker": "^", "linestyle": ":"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=TOP / "benchmarks" / "results")
    parser.add_argument("--out", type=Path, default=TOP / "docs", help="the folder of the pictures")
    args = parser.parse_args()
    files = sorted(args.results.glob("*.json")) if args.results.is_dir() else [args.results]
    drawn = 0
    for path in files:
        result = json.loads(path.read_text(encoding="utf-8"))
        timed = [row for row in result.get("rows", []) if "seconds" in row]
        steps = [row for row in timed if COLORS.keys() & row["seconds"].keys() and "allocator" not in row]
        gradients = [row for row in timed if "meta_gradient" in row["seconds"]]
        for name, draw, rows in (("speed", speed, steps), ("peers", peers, gradients)):
            if rows:
                gpu = "_cuda" if result["environment"]["device"].startswith("cuda") else ""
                save_figure(draw(rows, result["environment"]), args.out / f"{name}{gpu}.png")
                drawn += 1
    if not drawn:
        parser.error(f"{args.results}: no result of vmap_vs_loop.py or peers.py in it")


def speed(rows: list[dict[str, Any]], environment: dict[str, Any]) -> Figure:
    """Draw the milliseconds per task, looped and vmapped, for each number of inner steps."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    columns = min(2, len(networks))
    lines = -(-len(networks) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.7 * columns, 3.3 * lines + 0.6), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(networks) :]:
        axis.axis("off")
    for axis, network in zip(axes.flat, networks, strict=False):
        panel(axis, [row for row in rows if row["network"] == network])
        axis.set_title(network, fontsize=10)
    ways = [way for way in COLORS if any(way in row["seconds"] for row in rows)]
    handles = [Line2D([], [], color=COLORS[way], label=LABELS[way]) for way in ways]
    for steps, style in STYLES.items():
        if any(row["steps"] == steps for row in rows):
            handles.append(Line2D([], [], color="gray", label=f"{steps} inner step{'s' * (steps > 1)}", **style))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    figure.suptitle(f"One meta-step, second order\n{machine(environment)}", fontsize=9)
    return figure


def machine(environment: dict[str, Any]) -> str:
    gpu, threads = environment["device"].startswith("cuda"), environment["threads"]
    of_cpu = "" if gpu else f", {threads} thread{'s' * (threads > 1)}"
    return f"{environment['hardware']}{of_cpu}, torch {environment['versions']['torch']}"


def peers(rows: list[dict[str, Any]], environment: dict[str, Any]) -> Figure:
    """Draw the milliseconds of one meta-gradient in each library; a wrong gradient is hatched."""
    networks = list(dict.fromkeys((row["network"], row["tasks"], row["steps"]) for row in rows))
    ways = list(dict.fromkeys(row["way"] for row in rows))
    size = (3.6 * len(networks) + 1.6, 0.27 * len(ways) + 1.2)
    figure, axes = plt.subplots(1, len(networks), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, (network, tasks, steps) in zip(axes[0], networks, strict=True):
        bars(axis, ways, {row["way"]: row for row in rows if row["network"] == network})
        counts = f"{tasks} tasks, {steps} inner step{'s' * (steps > 1)}"
        axis.set_title(f"{network.removesuffix(f', {steps} steps')}\n{counts}", fontsize=9)
    axes[0, 0].invert_yaxis()  # the first way on top
    figure.suptitle(f"One meta-gradient, second order; hatched: another gradient. {machine(environment)}", fontsize=9)
    return figure


def bars(axis: Any, ways: list[str], rows: dict[str, dict[str, Any]]) -> None:
    """Draw the times, with their multiples of the fastest way of fmaml."""
    times = {way: 1e3 * statistics.median(row["seconds"]["meta_gradient"]) for way, row in rows.items()}
    ours = min(time for way, time in times.items() if way.startswith("fmaml"))
    for place, way in enumerate(ways):
        if way not in times:
            continue
        color = "tab:blue" if way.startswith("fmaml") else "tab:orange" if way.startswith("JAX") else "tab:gray"
        wrong = not rows[way]["relative_error"] < SAME
        bar = axis.barh(place, times[way], color=color, hatch="///" * wrong, edgecolor="white")
        shown = f"{times[way]:,.3g}" if times[way] < 100 else f"{times[way]:,.0f}"
        axis.bar_label(bar, [f"{shown} ms, {times[way] / ours:.2f}"], fontsize=7, padding=3)
    axis.set_yticks(range(len(ways)), ways, fontsize=8)
    axis.set(xscale="log", xlim=(min(times.values()) / 3, max(times.values()) * 8))
    axis.set_xlabel("ms, and multiple of fmaml's fastest", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)


def panel(axis: Any, rows: list[dict[str, Any]]) -> None:
    for way, color in COLORS.items():
        for steps, style in STYLES.items():
            found = sorted((r for r in rows if r["steps"] == steps and way in r["seconds"]), key=meta_batch)
            if found:
                times = [1e3 * statistics.median(row["seconds"][way]) / meta_batch(row) for row in found]
                axis.plot(list(map(meta_batch, found)), times, color=color, markersize=4, **style)
    ticks = sorted({meta_batch(row) for row in rows})
    axis.set(xscale="log", yscale="log", xlabel="tasks a meta-batch", ylabel="ms a task")
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.grid(alpha=0.3)


def meta_batch(row: dict[str, Any]) -> int:
    return row["meta_batch"]


if __name__ == "__main__":
    main()
