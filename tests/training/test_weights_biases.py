"""Weights & Biases as it is installed, offline: the file that `wandb sync` sends has every row."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from children import command, ended

SMALL = ["train.meta_steps=20", "train.validate_every=10", "train.validate_tasks=6", "eval.tasks=4", "eval.steps=2"]
SMALL += ["train.baseline=false"]
RUN = ["run", "sinusoid", *SMALL, "train.log_to=[wandb]", "--device", "cpu"]
BLOCK, RECORD_HEADER, FILE_HEADER = 1 << 15, 7, 7


def fmaml(tmp_path: Path, *words: str, **environment: str) -> str:
    unknown = dict.fromkeys(key for key in os.environ if key.startswith("WANDB_"))
    ended = command(
        *RUN, *words, "--out", str(tmp_path / "out"), environment={**unknown, "HOME": str(tmp_path), **environment}
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def records(path: Path) -> Iterator[bytes]:
    """Of a file in LevelDB's log format, as W&B writes it."""
    content, at, record = path.read_bytes(), FILE_HEADER, b""
    while at < len(content):
        if BLOCK - at % BLOCK < RECORD_HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, part = struct.unpack("<IHB", content[at : at + RECORD_HEADER])
        at += RECORD_HEADER
        record += content[at : at + length]
        at += length
        if part in (1, 4):  # whole, or the last part
            yield record
            record = b""


def history(out: Path) -> list[dict]:
    """The rows of the newest run of W&B in the folder, which a child reads, so that W&B is imported by it alone."""
    newest = max((out / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)

    def print_rows() -> None:
        from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

        for line in records(newest):
            record = Record.FromString(line)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                print(json.dumps({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}))

    read = ended(print_rows)
    assert read.returncode == 0, read.stderr
    return [json.loads(line) for line in read.stdout.splitlines()]


def check(out: Path) -> None:
    rows = history(out)
    for line in (out / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        kind = row.pop("kind")
        wanted = {f"{kind}/{key}": value for key, value in row.items()}
        assert sum(wanted.items() <= found.items() for found in rows) == 1, row
    results = json.loads((out / "results.json").read_text())["results"]
    for name, column in results.items():
        for step, score in enumerate(column):
            wanted = {"test/step": step, f"test/{name}/score": score["mean"], f"test/{name}/ci95": score["ci95"]}
            assert sum(wanted.items() <= found.items() for found in rows) == 1
    assert len(rows) == len((out / "metrics.jsonl").read_text().splitlines()) + sum(map(len, results.values()))


def test_offline(tmp_path):
    said = fmaml(tmp_path, WANDB_MODE="offline")
    assert said == ""
    check(tmp_path / "out")
    said = fmaml(tmp_path, "train.meta_steps=30", "train.schedule=constant", "--resume", WANDB_MODE="offline")
    assert "train.log_to" not in said
    check(tmp_path / "out")


def test_without_a_key_it_is_written_offline(tmp_path):
    """And nobody is asked for one."""
    said = fmaml(tmp_path, WANDB_BASE_URL="http://127.0.0.1:9")
    assert said.count("\n") == 1
    assert "No API key" in said
    assert f"written offline; `wandb sync` sends {tmp_path / 'out/wandb'}" in said
    check(tmp_path / "out")
