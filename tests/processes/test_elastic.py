"""Killed, stopped and interrupted processes under `torchrun`: every run ends as the uninterrupted one, bit for bit."""

import os
import random
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from children import PATIENCE, Child, processor_seconds
from processes.torchrun import finish, signal_all, start, workers_of
from safetensors.torch import load_file

STEPS = 300
SETTINGS = [f"train.meta_steps={STEPS}", "train.validate_every=75", "train.validate_tasks=16", "train.save_every=10"]
RUN = ["-m", "fmaml", "run", "sinusoid", *SETTINGS, "eval.tasks=16", "eval.steps=1", "train.compile=false"]
RUN += ["train.baseline=false", "train.log_every=25", "model.hidden=[8]", "--device", "cpu"]

HOW_TO_GO_ON = "the run continues from its last checkpoint with --resume, or by --max-restarts"


def last_step(out: Path) -> int:
    """Of the newest checkpoint, -1 if there is none."""
    return max((int(file.stem.removeprefix("step-")) for file in (out / "checkpoints").glob("step-*.ckpt")), default=-1)


def wait_for(condition: Any) -> None:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < PATIENCE, "waited too long"
        time.sleep(0.02)


def kill_all(agent: Child) -> None:
    """What a power cut does to the machine."""
    signal_all([*workers_of(agent), agent.pid], signal.SIGKILL)
    finish(agent)


def run_to_its_end(out: Path, *words: str) -> dict[str, bytes]:
    agent = start(2, *RUN, *words, "--out", str(out))
    said = finish(agent)
    assert agent.returncode == 0, said
    return {name: (out / name).read_bytes() for name in ("last.safetensors", "best.safetensors")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run_to_its_end(tmp_path_factory.mktemp("uninterrupted") / "out")


def same_numbers(out: Path, expected: dict[str, bytes], folder: Path) -> bool:
    """Whether the run's parameters have the same bits."""
    for name, content in expected.items():
        (folder / name).write_bytes(content)
        ours, theirs = load_file(out / name), load_file(folder / name)
        if any(not ours[key].equal(value) for key, value in theirs.items()):
            return False
    return True


@pytest.mark.parametrize("shard", [[], ["train.shard_optimizer=true"]])
def test_killed_at_random_it_ends_as_the_uninterrupted_run(uninterrupted, shard, tmp_path):
    """One process, then everything, then the other process is killed."""
    assert same_numbers(killed_at_random(tmp_path / "out", 3, *shard), uninterrupted, tmp_path)


@pytest.mark.slow
def test_killed_a_hundred_times(tmp_path):
    longer = f"train.meta_steps={40 * STEPS}"
    expected = run_to_its_end(tmp_path / "uninterrupted", longer)
    assert same_numbers(killed_at_random(tmp_path / "out", 100, longer), expected, tmp_path)


def killed_at_random(out: Path, kills: int, *words: str) -> Path:
    """The folder of a run in which one process, or everything, was killed so many times."""
    draw = random.Random(14)
    left, reached, agent = kills, -1, None
    while True:
        if agent is None:
            agent = start(2, *RUN, *words, "--out", str(out), "--resume", max_restarts=1000)
        progress = last_step(out)
        if left and progress > reached and len(workers := workers_of(agent)) == 2:
            time.sleep(draw.random() * 0.1)  # somewhere between two checkpoints
            reached, left = last_step(out), left - 1
            if draw.random() < 0.3:
                kill_all(agent)
                agent = None
            else:
                try:
                    os.kill(draw.choice(workers), signal.SIGKILL)
                except ProcessLookupError:
                    left += 1
                wait_for(
                    lambda agent=agent, workers=workers: (
                        agent.poll() is not None or not {*workers} & {*workers_of(agent)}
                    )
                )
        elif agent.poll() is not None:
            break
        time.sleep(0.01)
    assert agent.returncode == 0, finish(agent)
    assert left == 0, "the run ended before all kills"
    return out


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_without_their_agent_the_workers_save_and_end(uninterrupted, tmp_path):
    out = tmp_path / "out"
    agent = start(2, *RUN, "train.save_every=100000", "--out", str(out))
    wait_for(lambda: (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text().count("\n") > 3)
    workers = workers_of(agent)
    assert len(workers) == 2
    agent.kill()
    wait_for(lambda: not any(map(is_running, workers)))
    said = finish(agent)
    assert 50 < last_step(out) < STEPS, said
    assert said.count("fmaml: the launcher is gone: killed; the run saves and ends") == 1, said
    assert "Traceback" not in said
    again = start(2, *RUN, "train.save_every=100000", "--out", str(out), "--resume")
    said = finish(again)
    assert again.returncode == 0, said
    assert same_numbers(out, uninterrupted, tmp_path)


def test_sigterm_to_the_agent_saves_after_the_step(uninterrupted, tmp_path):
    out = tmp_path / "out"
    agent = start(2, *RUN, "train.save_every=100000", "--out", str(out))
    wait_for(lambda: (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text().count("\n") > 3)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = sum(processor_seconds(process) for process in (agent.pid, *workers_of(agent)))
    agent.terminate()
    said = finish(agent)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - used < 5, said
    assert 50 < last_step(out) < STEPS
    assert "stopped; `fmaml resume" in said
    again = start(2, *RUN, "train.save_every=100000", "--out", str(out), "--resume")
    said = finish(again)
    assert again.returncode == 0, said
    assert same_numbers(out, uninterrupted, tmp_path)


def test_a_stopped_process_is_found_and_named(tmp_path):
    out = tmp_path / "out"
    agent = start(2, *RUN, "--out", str(out), environment={"FMAML_TIMEOUT": "15"})
    wait_for(lambda: last_step(out) > 0)
    os.kill(workers_of(agent)[1], signal.SIGSTOP)
    wait_for(lambda: "fmaml:" in agent.said.read_text())
    own = [line for line in agent.said.read_text().splitlines() if line.startswith("fmaml:")]
    kill_all(agent)
    message = "rank 1 has not answered for 15 s (FMAML_TIMEOUT): stopped, or cut off"
    assert own[-1] == f"fmaml: {message}; {HOW_TO_GO_ON}"


def test_a_killed_process_is_named_where_nothing_restarts_it(tmp_path):
    out = tmp_path / "out"
    agent = start(3, *RUN, "--out", str(out))
    wait_for(lambda: last_step(out) > 0)
    os.kill(workers_of(agent)[2], signal.SIGKILL)
    said = finish(agent)
    own = [line for line in said.splitlines() if line.startswith("fmaml:")]
    assert own == [
        "fmaml: rank 2 is gone: killed; the run continues from its last checkpoint with --resume, or by --max-restarts"
    ], said


def test_another_number_of_processes_goes_on_and_says_so(uninterrupted, tmp_path):
    out = tmp_path / "out"
    agent = start(2, *RUN, "--out", str(out))
    wait_for(lambda: last_step(out) > STEPS / 4)
    kill_all(agent)
    again = start(1, *RUN, "--out", str(out), "--resume")
    said = finish(again)
    assert again.returncode == 0, said
    assert "machine.processes was 2 and is 1: results may now differ in the last bits" in said
    (tmp_path / "two").write_bytes(uninterrupted["last.safetensors"])
    ours, theirs = load_file(out / "last.safetensors"), load_file(tmp_path / "two")
    assert all(ours[name].allclose(value, atol=1e-2) for name, value in theirs.items())
