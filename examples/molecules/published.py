"""The results that FS-Mol has published, of each assay."""

import csv
from pathlib import Path

PUBLISHED = {  # file -> method
    "kNN": "kNN",
    "random_forest": "random forest",
    "GNN-Multitask": "GNN-MT",
    "MAML-Support16": "GNN-MAML",
    "ProtoNet-gnn+ecfp+fc-Support64": "ProtoNet",
}
Gains = dict[str, dict[str, float]]  # name -> assay -> average precision over the base rate


def published_gains(folder: Path, shots: int) -> Gains:
    """The benchmark's results of each assay, minus its share of active molecules."""
    found: Gains = {}
    for file, name in PUBLISHED.items():
        with (folder / f"{file}_summary.csv").open(encoding="utf-8") as rows:
            found[name] = {
                row["TASK_ID"]: float(row[f"{shots}_train"].split("+")[0]) - float(row["fraction_positive_test"])
                for row in csv.DictReader(rows)
                if row[f"{shots}_train"]
            }
    return found
