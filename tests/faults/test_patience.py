"""Training that ends early ends at the same step, with the same bits, whatever interrupted it."""

import json
from pathlib import Path

import pytest
from harness import fingerprint, finish, fork, parameters, run, uninterrupted, wait

from fmaml.checkpoints import checkpoint_store

# Of 40 steps, with a rate that makes the best validation an early one
EARLY = ("train.patience=3", "train.validate_every=2", "optimizer={name: adam, lr: 0.3}", "train.schedule=constant")


def validated(out: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["score"]) for row in rows if row["kind"] == "val"]


def end_of(scores: list[tuple[int, float]], patience: int) -> int:
    """The step after which training ends, of validations of an error, which is better where it is lower."""
    best, without = float("inf"), 0
    for step, score in scores:
        best, without = (score, 0) if score < best else (best, without + 1)
        if without == patience:
            return step
    return scores[-1][0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert finish(out, *EARLY[1:]) == 0
    return out


def died(out: Path, step: int) -> None:
    def work() -> int:
        save = checkpoint_store.CheckpointStore.save

        def dying(self, progress):
            save(self, progress)
            if progress.state.step == step:
                raise KeyboardInterrupt

        checkpoint_store.CheckpointStore.save = dying
        return run(out, *EARLY)

    assert wait(fork(work)) == 99


def test_it_ends_after_so_many_validations_without_a_new_best(whole, tmp_path):
    out, said = tmp_path / "out", tmp_path / "said"
    assert wait(fork(lambda: run(out, *EARLY), None, said)) == 0, said.read_text()
    end = end_of(validated(whole), 3)
    assert 6 < end < 40
    assert validated(out) == [(step, score) for step, score in validated(whole) if step <= end]
    assert f"ended after step {end}: 3 validations without a new best (train.patience)" in said.read_text()
    best = end - 3 * 2
    assert min(validated(out), key=lambda row: row[1])[0] == best


@pytest.mark.parametrize("back", [1, 2, 3, 4])
def test_it_ends_there_when_it_was_interrupted_too(whole, tmp_path, back):
    end = end_of(validated(whole), 3)
    died(tmp_path / "out", end - back)
    assert finish(tmp_path / "out", *EARLY) == 0
    assert fingerprint(tmp_path / "out") == uninterrupted(*EARLY)


def test_it_goes_on_with_more_patience(whole, tmp_path):
    out = tmp_path / "out"
    assert finish(out, *EARLY) == 0
    before = fingerprint(out)
    assert finish(out, *EARLY) == 0
    assert fingerprint(out) == before, "with the same it is at its end"
    assert finish(out, *EARLY[1:], "train.patience=null") == 0
    assert validated(out) == validated(whole)
    assert parameters(out / "last.safetensors") == parameters(whole / "last.safetensors")
