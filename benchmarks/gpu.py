"""What a GPU makes of fmaml: one file, the most valuable numbers first, within eight minutes.

    python benchmarks/gpu.py --pack DRAWINGS             # where Omniglot's files are: one file to carry
    python benchmarks/gpu.py --out FILE [--drawings DRAWINGS] [--device auto] [--quick] [--parts a,b]

Of fmaml's packages it does without pydantic, and needs annotated-types, a single file that can be carried and put on
PYTHONPATH as the wheel that it is. FILE has a line of JSON for every number, written as soon as it is known:
the part that measured it, its case, and what it found. A part is a process of its own, stopped when its time is over;
what went wrong is a line too, and the others run. ``--quick`` has each part do its least, to see that it runs, which a
CPU can do as well: there graphs are calls, and TF32 is float32.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_rows import Rows

SECONDS = {  # part -> seconds that it may take, from the most valuable on
    "ceilings": 35,
    "steps": 70,
    "compiled": 130,
    "omniglot": 140,
    "jax": 25,
    "large": 30,
    "resume": 25,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="append to this file")
    parser.add_argument("--drawings", type=Path, help="what --pack wrote")
    parser.add_argument("--pack", type=Path, help="write Omniglot's drawings there, and nothing else")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", default=",".join(SECONDS), help="some of %(default)s")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # the one that this process is
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
    if unknown := set(args.parts.split(",")) - SECONDS.keys():
        parser.error(f"--parts: {', '.join(sorted(unknown))}: must be among {', '.join(SECONDS)}")
    failed = [part for part in args.parts.split(",") if not ran(part, args.out)]
    show(args.out)
    return len(failed)


def ran(part: str, out: Path) -> bool:
    """Run the part as a process of its own; whether it came to its end."""
    limit, begun = SECONDS[part], time.perf_counter()
    command = [sys.executable, __file__, *sys.argv[1:], "--part", part, "--seconds", str(0.85 * limit)]
    try:
        code = subprocess.run(command, timeout=limit, check=False).returncode
        ended = "done" if code == 0 else f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        code, ended = 1, f"stopped after {limit} s"
    Rows(out, part).add("end", ended=ended, seconds=time.perf_counter() - begun)
    return code == 0


def alone(args: Any) -> int:
    """The part in this process."""
    from gpu_parts import PARTS, Given  # imports torch, which the parent does without

    rows = Rows(args.out, args.part)
    try:
        PARTS[args.part](Given.of(args), rows)
    except Exception as error:
        rows.add("failed", why=f"{type(error).__name__}: {error}")
        raise
    return 0


def show(out: Path) -> None:
    """The file as a table."""
    for line in out.read_text().splitlines():
        row = json.loads(line)
        cells = "  ".join(f"{key} {short(value)}" for key, value in row.items() if key not in ("part", "case"))
        print(f"{row['part']:10} {row['case']:42} {cells}")


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
