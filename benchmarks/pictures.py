"""Draw docs/speed.png from the samples of vmap_vs_loop.py: time per task against meta-batch, one panel per network.

    python benchmarks/pictures.py [--results FOLDER or FILE] [--out docs/speed.png]

Each result in a folder gets its own picture; "_cuda" is appended to the name for a GPU.
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
    parser.add_argument("--out", type=Path, default=TOP / "docs" / "speed.png")
    args = parser.parse_args()
    files = sorted(args.results.glob("vmap_vs_loop*.json")) if args.results.is_dir() else [args.results]
    drawn = 0
    for path in files:
        result = json.loads(path.read_text(encoding="utf-8"))
        rows = [row for row in result["rows"] if "meta_batch" in row and COLORS.keys() & row.get("seconds", {}).keys()]
        rows = [row for row in rows if "allocator" not in row]
        if rows:
            gpu = "_cuda" if result["environment"]["device"].startswith("cuda") else ""
            save_figure(speed(rows, result["environment"]), args.out.with_stem(args.out.stem + gpu))
            drawn += 1
    if not drawn:
        parser.error(f"{args.results}: no result of vmap_vs_loop.py in it")


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
    threads = (
        ""
        if environment["device"].startswith("cuda")
        else f", {environment['threads']} thread{'s' * (environment['threads'] > 1)}"
    )
    version = environment["versions"]["torch"]
    figure.suptitle(f"One meta-step, second order\n{environment['hardware']}{threads}, torch {version}", fontsize=9)
    return figure


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
