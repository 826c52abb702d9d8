"""Numbers gone wrong end at the step in which they arise, and never reach a checkpoint."""

import json
import random
from pathlib import Path

import pytest
import torch
from harness import SHORT, config, fork, in_place, run, wait

import fmaml.training.run_experiment
from fmaml.checkpoints.checkpoint_format import decode_checkpoint
from fmaml.checkpoints.checkpoint_store import CheckpointStore, checkpoint_files
from fmaml.checkpoints.progress import Progress
from fmaml.config.build import build
from fmaml.config.settings import TrainSettings
from fmaml.errors import RunFailed
from fmaml.training.compiled import FINITE
from fmaml.training.nan_guard import NanGuard
from fmaml.training.resume_and_train import first_progress
from fmaml.tree import is_finite, leaves, map_leaves

CPU = torch.device("cpu")

STOP = TrainSettings(meta_steps=1, meta_batch=1)
SKIP_TWO = TrainSettings(meta_steps=1, meta_batch=1, on_nan="skip", skip_limit=2)


def poisoned(step: int, where: str, value: float):
    """Patches a child's data so that one number of task 1 of a step is wrong."""
    part, field = where.split(".")
    build = fmaml.training.run_experiment.build

    def bad(*args):
        experiment = build(*args)
        sample = experiment.source.sample

        def sampled(split, at, tasks):
            drawn = sample(split, at, tasks)
            if (split, at) == ("train", step):
                getattr(getattr(drawn, part), field)[1, 0] = value
            return drawn

        return experiment._replace(source=experiment.source._replace(sample=sampled))

    fmaml.training.run_experiment.build = bad


def checkpoints_are_finite(out: Path) -> bool:
    return all(is_finite(decode_checkpoint(path.read_bytes())[0]) for path in checkpoint_files(out / "checkpoints"))


TRIALS = [
    (policy, where, value)
    for policy in ("stop", "skip")
    for where in ("support.x", "support.y", "query.x", "query.y")
    for value in (float("nan"), float("inf"), 1e30)
]


@pytest.mark.parametrize(("policy", "where", "value"), TRIALS)
def test_a_wrong_number_in_a_batch(tmp_path, policy, where, value):
    step = random.Random(f"{policy}{where}{value}").randrange(2, 10)
    out, said = tmp_path / "out", tmp_path / "said"

    def work() -> int:
        poisoned(step, where, value)
        return run(out, f"train.on_nan={policy}", "train.log_every=1", SHORT)

    assert wait(fork(work, None, said)) == (1 if policy == "stop" else 0), said.read_text()
    text = " ".join(said.read_text().split())
    kind = {"nan": "NaN", "inf": "infinity"}.get(str(value))
    names = where.replace(".", " ")
    if kind:
        assert f"task 1, {names}: the batch holds {kind}" in text
    else:  # large, and finite: it overflows on its way
        assert "task 1, " in text
        assert "inner step" in text
    assert checkpoints_are_finite(out)
    newest, _ = checkpoint_files(out / "checkpoints")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    trained = [row["step"] for row in rows if row["kind"] == "train"]
    if policy == "stop":
        assert f"meta-step {step}: task 1" in text
        assert newest.stem == f"step-{step - 1:09d}"
        assert trained == list(range(1, step))
    else:
        assert [row["step"] for row in rows if row["kind"] == "skipped"] == [step]
        assert trained == [at for at in range(1, 11) if at != step]
        assert decode_checkpoint(newest.read_bytes())[1]["skipped"] == 1


@pytest.mark.parametrize("key", ["optimizer.lr", "algorithm.inner_lr"])
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_rate_that_is_far_too_high(tmp_path, key, policy):
    out, said = tmp_path / "out", tmp_path / "said"
    assert wait(fork(lambda: run(out, f"{key}=1e30", f"train.on_nan={policy}"), None, said)) == 1
    text = said.read_text()
    assert "lower optimizer.lr or algorithm.inner_lr" in text
    assert ("after 10 steps skipped (train.skip_limit)" in text) == (policy == "skip")
    assert checkpoints_are_finite(out)


def small():
    experiment = build(config(), CPU)
    theta = experiment.model.init(torch.Generator().manual_seed(0))
    start = first_progress(experiment, theta)

    def step(state, tasks):
        return fmaml.meta_step(experiment.algorithm, experiment.optimizer, state, tasks)

    return experiment, start, step, experiment.source.sample("train", 1, range(3))


def test_the_message_names_the_place():
    experiment, start, step, tasks = small()

    def told(algorithm) -> str:
        broken = map_leaves(lambda leaf: leaf * torch.nan, start.state.theta)
        guard = NanGuard(lambda state, tasks: (state._replace(theta=broken), step(state, tasks)[1]), algorithm, STOP)
        with pytest.raises(RunFailed) as error:
            guard(start.state, tasks, 0)
        return str(error.value)

    good = experiment.algorithm
    walk = good.trajectory
    assert walk is not None

    def spoilt(theta, support, steps=1):
        first, last = walk(theta, support, 1)
        return [first, map_leaves(lambda leaf: leaf / 0, last)]

    def endless(theta, task):
        loss, metrics = good.loss(theta, task)
        return loss, {"query_loss": metrics["query_loss"] * torch.inf}

    def steep(theta, task):
        loss, metrics = good.loss(theta, task)
        return loss + sum((leaf * 0).sqrt().sum() for leaf in leaves(theta)), metrics

    assert "task 0, inner step 1: the adapted parameters hold" in told(good._replace(trajectory=spoilt))
    stream = good._replace(trajectory=spoilt, predicts=lambda task, k: task)
    assert "task 0, inner step 1 (chunk 1 of the stream): the adapted parameters hold" in told(stream)
    assert "task 0, after inner step 1: the query loss is" in told(good._replace(loss=endless))
    assert "task 0, after inner step 1: the meta-gradient holds NaN" in told(good._replace(loss=steep))
    early = fmaml.first_then(good._replace(loss=endless), good, until=5)
    assert "task 0, after inner step 1: the query loss is" in told(early)
    assert "meta-step 1: the outer update is not finite, although every task is" in told(good)


def test_a_skipped_step_leaves_theta_and_counts():
    experiment, start, step, tasks = small()
    tasks.query.y[2] = torch.nan
    guard = NanGuard(step, experiment.algorithm, SKIP_TWO)
    state, _, why = guard(start.state, tasks, 1)
    assert "task 2, query y" in why
    assert state.step == 1
    assert state.theta is start.state.theta
    with pytest.raises(RunFailed, match="after 2 steps skipped"):
        guard(start.state, tasks, 2)


def test_a_compiled_step_is_believed_about_itself():
    experiment, start, step, tasks = small()

    def says(finite):
        def judged(state, tasks):
            state, metrics = step(state, tasks)
            return state, {**metrics, FINITE: torch.tensor(finite)}

        return NanGuard(judged, experiment.algorithm, STOP)

    assert says(True)(start.state, tasks, 0)[0].step == 1
    with pytest.raises(RunFailed, match="meta-step 1: the outer update is not finite, although every task is"):
        says(False)(start.state, tasks, 0)


class Late(NanGuard):
    """As on a GPU, where a verdict is read one step later."""

    def can_defer(self, finite):
        return True


def test_a_verdict_read_late_names_the_step_it_is_about():
    experiment, start, step, tasks = small()
    guard = Late(step, experiment.algorithm, STOP)
    state, _, _ = guard(start.state, tasks, 0)
    bad = map_leaves(torch.clone, tasks)
    bad.support.x[0] = torch.inf
    tainted, _, _ = guard(state, bad, 0)
    with pytest.raises(RunFailed, match="meta-step 2: task 0, support x: the batch holds infinity"):
        guard(tainted, tasks, 0)
    guard(state, bad, 0)
    with pytest.raises(RunFailed, match="meta-step 2"):
        guard.check_pending()
    guard.check_pending()


@pytest.mark.parametrize("part", ["theta", "opt_state", "best_theta"])
def test_what_is_not_finite_is_never_saved(tmp_path, part):
    _, start, _, _ = small()
    store = CheckpointStore(tmp_path, {}, in_place)
    store.checkpoints.mkdir()
    store.save(start)
    bad = start.best_theta if part == "best_theta" else getattr(start.state, part)
    bad = map_leaves(lambda leaf: leaf + torch.inf, bad)
    state = start.state._replace(step=1, **({} if part == "best_theta" else {part: bad}))
    with pytest.raises(RunFailed, match="is not finite"):
        store.save(Progress(state, 0.0, bad if part == "best_theta" else start.best_theta))
    assert [path.stem for path in checkpoint_files(store.checkpoints)] == ["step-000000000"]
