"""Measure fmaml on a GPU within five minutes, the most valuable numbers first; docs/gpu.md explains it.

    python benchmarks/gpu.py --out FILE [--drawings DRAWINGS] [--device auto] [--quick] [--parts a,b]
    python benchmarks/gpu.py --pack DRAWINGS             # pack Omniglot's files into one file

With ``--drawings`` it also trains the paper's Omniglot, for two minutes. Only the part "training" needs pydantic. The
others need annotated-types; its wheel is one file, which can be put on PYTHONPATH. FILE gets a line of JSON for every
number as soon as it is known: the part, its case and its values. Each part is a separate process with a time limit.
Errors are lines, too, and the other parts still run. ``--quick`` runs the least of each part, as a test. It also works
on a CPU, where graphs are plain calls and TF32 is float32.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_rows import Rows

SECONDS = {  # part -> its time limit in seconds, the most valuable first
    "ceilings": 30,
    "steps": 55,
    "training": 40,
    "compiled": 90,
    "jax": 25,
    "large": 30,
    "resume": 25,
    "omniglot": 140,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="append to this file")
    parser.add_argument("--drawings", type=Path, help="the file from --pack")
    parser.add_argument("--pack", type=Path, help="only write Omniglot's drawings to this file")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", help=f"some of {','.join(SECONDS)}; all but omniglot without --drawings")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # the part to run in this process
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.pack:
        from gpu_parts import pack

        pack(args.pack)
        return 0
    if not args.out:
        parser.error("give --out FILE, or --pack DRAWINGS")
    if args.part:
        return alone(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    parts = args.parts.split(",") if args.parts else [part for part in SECONDS if part != "omniglot" or args.drawings]
    if unknown := set(parts) - SECONDS.keys():
        parser.error(f"--parts: {', '.join(sorted(unknown))}: must be among {', '.join(SECONDS)}")
    failed = [part for part in parts if not ran(part, args.out)]
    show(args.out)
    return len(failed)


def ran(part: str, out: Path) -> bool:
    """Run the part in a separate process; True if it succeeded."""
    limit, started = SECONDS[part], time.perf_counter()
    command = [sys.executable, __file__, *sys.argv[1:], "--part", part, "--seconds", str(0.85 * limit)]
    try:
        code = subprocess.run(command, timeout=limit, check=False).returncode
        ended = "done" if code == 0 else f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        code, ended = 1, f"stopped after {limit} s"
    Rows(out, part).add("end", ended=ended, seconds=time.perf_counter() - started)
    return code == 0


def alone(args: Any) -> int:
    """Run the part in this process."""
    from gpu_parts import PARTS, Given  # imports torch, which the parent does not need

    rows = Rows(args.out, args.part)
    try:
        PARTS[args.part](Given.of(args), rows)
    except Exception as error:
        rows.add("failed", why=f"{type(error).__name__}: {error}")
        raise
    return 0


def show(out: Path) -> None:
    """Print the file as a table."""
    for line in out.read_text().splitlines():
        row = json.loads(line)
        cells = "  ".join(f"{key} {short(value)}" for key, value in row.items() if key not in ("part", "case"))
        print(f"{row['part']:10} {row['case']:42} {cells}")


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
