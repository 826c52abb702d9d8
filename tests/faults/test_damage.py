"""A checkpoint that was damaged, or made to do harm, is never used."""

import json
import os
import random
import resource
import shutil
import time
from pathlib import Path

import pytest
import torch
from harness import fingerprint, finish, fork, run, steps, uninterrupted, wait
from safetensors.torch import save

from fmaml.checkpoints.checkpoint_format import (
    MAGIC,
    DamagedCheckpoint,
    OtherVersion,
    decode_checkpoint,
    encode_checkpoint,
    fill,
    flatten,
)
from fmaml.checkpoints.checkpoint_store import checkpoint_files

TENSORS = {f"theta.layer{i}.weight": torch.arange(200.0) + i for i in range(4)}
FACTS = {"step": 7, "config": {"seed": 0}}
WHOLE = encode_checkpoint(TENSORS, FACTS)
OTHER = encode_checkpoint({name: tensor + 1 for name, tensor in TENSORS.items()}, FACTS)


def detected(content: bytes) -> bool:
    try:
        decode_checkpoint(content)
    except DamagedCheckpoint:
        return True
    return False


def test_what_is_whole_comes_back():
    tensors, facts = decode_checkpoint(WHOLE)
    assert facts == FACTS
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_a_checkpoint_of_more_than_the_run_holds_is_not_used_in_part():
    """As of an algorithm whose theta was larger in an earlier version: what is left would mean something else."""
    theta, more = {"p": torch.ones(2)}, {"p": torch.ones(2), "norms": {"p": torch.zeros(3, 2)}}
    assert torch.equal(fill(theta, flatten(theta, "theta.") | flatten(more, "best."), "theta.")["p"], theta["p"])
    with pytest.raises(OtherVersion, match=r"theta.norms.p has no place in this run"):
        fill(theta, flatten(more, "theta."), "theta.")


@pytest.mark.parametrize("flips", [1000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_every_single_bit_counts(flips):
    draw = random.Random(flips)
    ends = [8 * at + bit for at in (*range(200), *range(len(WHOLE) - 100, len(WHOLE))) for bit in (draw.randrange(8),)]
    for bit in (ends + [draw.randrange(8 * len(WHOLE)) for _ in range(flips)])[:flips]:
        flipped = bytearray(WHOLE)
        flipped[bit // 8] ^= 1 << bit % 8
        assert detected(bytes(flipped)), bit


def other_damages(draw: random.Random):
    """470 of them: cut short, a block of zeros, something after the end, parts of another checkpoint."""
    size = len(WHOLE)
    for cut in [0, 1, size - 1, *(draw.randrange(2, size - 1) for _ in range(297))]:
        yield WHOLE[:cut]
    for at in (draw.randrange(size - 512) for _ in range(100)):
        zeroed = WHOLE[:at] + bytes(512) + WHOLE[at + 512 :]
        yield zeroed if zeroed != WHOLE else zeroed[:-1]
    for _ in range(50):
        yield WHOLE + draw.randbytes(draw.randrange(1, 5000))
    for _ in range(20):
        at = draw.randrange(len(MAGIC) + 1, size - 900)
        yield WHOLE[:at] + OTHER[at:]


def test_every_other_damage_counts():
    damages = list(other_damages(random.Random(1)))
    assert len(damages) == 470
    assert WHOLE not in damages
    assert [i for i, content in enumerate(damages) if not detected(content)] == []


# What a run does about it


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run with its checkpoints of the steps 40 and 39."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    assert finish(out) == 0
    return out


@pytest.fixture
def out(stopped, tmp_path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "out"))


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_a_damaged_newest_is_named_and_the_one_before_it_used(out, tmp_path):
    newest, before = checkpoint_files(out / "checkpoints")
    spoil(newest)
    assert wait(fork(lambda: run(out), None, tmp_path / "said")) == 0
    said = (tmp_path / "said").read_text()
    assert f"{newest}: damaged (its digest does not match); it is not used" in said
    assert f"continuing from {before}" in said
    assert fingerprint(out) == uninterrupted()
    assert newest.with_suffix(".damaged").exists()


def test_if_all_are_damaged_the_run_stops_and_leaves_everything(out, tmp_path):
    for path in checkpoint_files(out / "checkpoints"):
        spoil(path)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    for _ in range(2):
        assert wait(fork(lambda: run(out), None, tmp_path / "said")) == 1
    assert "all 2 checkpoints are damaged, and a run never restarts by itself" in (tmp_path / "said").read_text()
    assert {path: path.read_bytes() for path in before} == before


def test_if_all_are_gone_the_run_stops(out, tmp_path):
    shutil.rmtree(out / "checkpoints")
    assert wait(fork(lambda: run(out), None, tmp_path / "said")) == 1
    assert "its checkpoints are missing" in (tmp_path / "said").read_text()


# Made to do harm: with a digest that is right, since whoever wants harm can compute one


class Harm:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def headed(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def one(**tensor) -> bytes:
    metadata = {"__metadata__": {"facts": json.dumps(FACTS)}}
    given = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | tensor
    return headed(json.dumps(metadata | {"theta.w": given}).encode(), bytes(8))


def hostile(canary: Path) -> dict[str, bytes]:
    import io
    import pickle

    saved = io.BytesIO()
    torch.save({"theta": Harm(canary)}, saved)
    facts = {"facts": "[" * 100_000}
    return {
        "pickle": pickle.dumps(Harm(canary)),
        "torch zip": saved.getvalue(),
        "nothing": b"",
        "no header": b"\xff" * 8,
        "header of 2^63 bytes": (2**63).to_bytes(8, "little") + b"{}",
        "header longer than the file": (10_000).to_bytes(8, "little") + b"{}",
        "header that is no JSON": headed(b"cos\nsystem\n(S'true'\ntR."),
        "header that is a list": headed(b"[]"),
        "header nested deep": headed(b'{"a":' * 100_000),
        "metadata that are no dict": headed(b'{"__metadata__": 3}'),
        "facts missing": save({"w": torch.ones(2)}),
        "facts that are no JSON": save({"w": torch.ones(2)}, {"facts": "import os"}),
        "facts nested deep": save({"w": torch.ones(2)}, facts),
        "facts that are a list": save({"w": torch.ones(2)}, {"facts": "[1]"}),
        "facts that are a number": save({"w": torch.ones(2)}, {"facts": "3"}),
        "a billion elements": one(shape=[10**9], data_offsets=[0, 4 * 10**9]),
        "elements that overflow": one(shape=[2**62, 2**62]),
        "more elements than bytes": one(shape=[1000]),
        "negative shape": one(shape=[-2]),
        "offsets outside": one(data_offsets=[8, 16]),
        "offsets backwards": one(data_offsets=[8, 0]),
        "unknown type": one(dtype="OBJECT"),
        "path as a name": one(dtype="../../etc/passwd"),
        "a zip bomb's name": headed(b"PK\x03\x04" * 1000),
    }


def test_a_hostile_checkpoint_is_refused_at_once_and_runs_nothing(tmp_path):
    canary = tmp_path / "canary"
    files = hostile(canary)
    assert len(files) >= 20
    from hashlib import sha256

    def work() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for name, body in files.items():
            for content in (body, MAGIC + sha256(body).hexdigest().encode() + b"\n" + body):
                begun = time.process_time()  # which no load of the machine changes
                if not detected(content):
                    print(name, "was taken", flush=True)
                    return 7
                assert time.process_time() - begun < 2, name
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB on Linux
        assert grown < 200 * 1024, grown
        return 0

    assert wait(fork(work, None, tmp_path / "said")) == 0, (tmp_path / "said").read_text()
    assert not canary.exists()


COUNTED = ("skipped", "step_form", "without_best")  # facts of the progress


def test_a_checkpoint_of_another_network_is_refused(out, tmp_path):
    newest, _ = checkpoint_files(out / "checkpoints")
    tensors, facts = decode_checkpoint(newest.read_bytes())
    for wrong in ({}, {name: tensor.double() for name, tensor in tensors.items()}):
        newest.write_bytes(encode_checkpoint(wrong, facts))
        (out / "metrics.jsonl").touch()
        assert wait(fork(lambda: run(out), None, tmp_path / "said")) == 0
        assert "theta.layer1.weight should be torch.float32" in (tmp_path / "said").read_text()
        newest.with_suffix(".damaged").unlink()
    newest.write_bytes(encode_checkpoint(tensors, {key: facts[key] for key in facts if key not in COUNTED}))
    assert wait(fork(lambda: run(out), None, tmp_path / "said")) == 0
    assert f"it lacks {', '.join(COUNTED)}" in (tmp_path / "said").read_text()
    assert fingerprint(out) == uninterrupted()
    assert steps(out)[0] == 40


def test_checkpoints_of_another_version_are_called_that(out, tmp_path):
    for path in checkpoint_files(out / "checkpoints"):
        tensors, facts = decode_checkpoint(path.read_bytes())
        path.write_bytes(encode_checkpoint(tensors, {key: facts[key] for key in facts if key not in COUNTED}))
    assert wait(fork(lambda: run(out), None, tmp_path / "said")) == 1
    said = (tmp_path / "said").read_text()
    assert said.count("of another version of fmaml (it lacks skipped, step_form, without_best); it is not used") == 2
    assert "all 2 checkpoints are of another version of fmaml, and a run never restarts by itself" in said


def test_a_checkpoint_under_the_name_of_another_is_not_used(out, tmp_path):
    newest, before = checkpoint_files(out / "checkpoints")
    shutil.copy(before, newest)
    assert wait(fork(lambda: run(out), None, tmp_path / "said")) == 0
    assert f"{newest}: damaged (it is of step 39)" in (tmp_path / "said").read_text()
    assert fingerprint(out) == uninterrupted()
