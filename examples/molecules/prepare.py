"""Pack the assays of FS-Mol into three files of arrays: python -m examples.molecules.prepare DATASETS FOLDER

DATASETS has the folders train, valid and test, with one ASSAY.jsonl.gz each. Writes FOLDER/train.npz, val.npz and
test.npz. Takes some minutes, and 3 GB of memory.
"""

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDERS = {"train": "train", "val": "valid", "test": "test"}  # split -> its folder in DATASETS
QUANTILES = np.linspace(0, 1, 1001)
Molecule = tuple[bool, NDArray[np.uint8], NDArray[np.float32]]  # active, bits [256] of 8, descriptors [200]


def molecules(file: Path) -> Iterator[Molecule]:
    """The molecules of an assay. Counts of the fingerprint become bits: the substructure is there, or not."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            present = numbers(line, "fingerprints") > 0
            active = float(line.partition('"Property": "')[2].partition('"')[0]) > 0
            yield active, np.packbits(present), numbers(line, "descriptors").astype(np.float32)


def numbers(line: str, name: str) -> NDArray[np.float64]:
    """The list of numbers of a key, without reading the rest of the line."""
    return np.fromstring(line.partition(f'"{name}": [')[2].partition("]")[0], sep=",")


def pack(folder: Path) -> dict[str, NDArray]:
    """All molecules of a folder, assay after assay, and the number of each assay."""
    files = sorted(folder.glob("*.jsonl.gz"))
    if not files:
        raise SystemExit(f"{folder}: has no file *.jsonl.gz; give the folder datasets of FS-Mol")
    found, counts = [], []
    for file in files:
        own = list(molecules(file))
        found += own
        counts.append(len(own))
    active, bits, descriptors = (np.stack(column) for column in zip(*found, strict=True))
    names = np.array([file.name.partition(".")[0] for file in files])
    return {"active": active, "bits": bits, "descriptors": descriptors, "counts": np.array(counts), "names": names}


def ranks(descriptors: NDArray, quantiles: NDArray) -> NDArray[np.int8]:
    """Each descriptor as its rank among training molecules, from -127 to 127; the middle rank of equal ones."""
    out = np.empty(descriptors.shape, np.int8)
    for column, (values, grid) in enumerate(zip(descriptors.T, quantiles.T, strict=True)):
        low, high = (np.searchsorted(grid, values, side) for side in ("left", "right"))
        out[:, column] = np.round(127 * ((low + high) / len(grid) - 1))
    return out


def main(datasets: Path, folder: Path) -> None:
    splits = {split: pack(datasets / name) for split, name in FOLDERS.items()}
    train = np.nan_to_num(splits["train"]["descriptors"])
    quantiles = np.quantile(train[:: max(1, len(train) // 50_000)], QUANTILES, axis=0)
    folder.mkdir(parents=True, exist_ok=True)
    for split, arrays in splits.items():
        arrays["descriptors"] = ranks(np.nan_to_num(arrays["descriptors"]), quantiles)
        np.savez(folder / f"{split}.npz", **arrays)  # type: ignore[arg-type]
        print(f"{split}: {len(arrays['counts'])} assays, {len(arrays['active'])} molecules")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
