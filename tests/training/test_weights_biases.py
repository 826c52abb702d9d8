"""Weights & Biases as it is installed, offline: the file that `wandb sync` sends has every row."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SMALL = ["train.meta_steps=20", "train.validate_every=10", "train.validate_tasks=6", "eval.tasks=4", "eval.steps=2"]
SMALL += ["train.baseline=false"]
RUN = [sys.executable, "-m", "fmaml", "run", "sinusoid", *SMALL, "train.log_to=[wandb]", "--device", "cpu"]
BLOCK, RECORD_HEADER, FILE_HEADER = 1 << 15, 7, 7


def fmaml(tmp_path: Path, *words: str, **environment: str) -> str:
    known = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    known |= {"HOME": str(tmp_path), **environment}
    ended = subprocess.run(
        [*RUN, *words, "--out", str(tmp_path / "out")], env=known, capture_output=True, text=True, check=True
    )
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
    """The rows of the newest run of W&B in the folder."""
    code = (
        "import sys, json; from wandb.proto.wandb_internal_pb2 import Record\n"
        "for line in sys.stdin:\n"
        "    record = Record.FromString(bytes.fromhex(line))\n"
        "    if record.WhichOneof('record_type') == 'history':\n"
        "        pairs = [('/'.join(i.nested_key) or i.key, json.loads(i.value_json)) for i in record.history.item]\n"
        "        print(json.dumps(dict(pairs)))\n"
    )
    newest = max((out / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    lines = "\n".join(record.hex() for record in records(newest))
    read = subprocess.run([sys.executable, "-c", code], input=lines, capture_output=True, text=True, check=True)
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
