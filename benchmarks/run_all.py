"""Run all benchmarks one after the other on one device, within six minutes.

    python benchmarks/run_all.py --out FOLDER [--device auto] [--quick]

Writes FOLDER/NAME_DEVICE.json for each script, and its table to NAME_DEVICE.txt. Each script is a separate process with
its own time limit. After the limit it starts nothing new, and its rows list the omitted cases. It is stopped a quarter
of the limit and ten seconds later; the rows written until then are kept.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from fmaml.processes.environment import pick_device

SECONDS = {
    "roofline": 25,
    "peers": 60,
    "vmap_vs_loop": 100,
    "sampling": 25,
    "memory": 60,
    "startup": 40,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    device = pick_device(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, seconds in SECONDS.items():
        target = args.out / f"{name}_{device.type}.json"
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--device", str(device)]
        command += ["--seconds", str(seconds), "--json", str(target)] + ["--quick"] * args.quick
        started = time.perf_counter()
        code = part(command, target.with_suffix(".txt"), limit=1.25 * seconds + 10)
        print(f"{name}: {time.perf_counter() - started:.0f} s of {seconds}, {code or 'done'}", flush=True)
        failed += [name] * bool(code)
    return len(failed)


def part(command: list[str], table: Path, limit: float) -> str:
    """Run a command with its output in a file; return "" or the problem."""
    with table.open("w", encoding="utf-8") as file:
        try:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=limit, check=False).returncode
        except subprocess.TimeoutExpired:
            return "stopped: it took too long"
    return f"exit code {code}: see {table}" if code else ""


if __name__ == "__main__":
    sys.exit(main())
