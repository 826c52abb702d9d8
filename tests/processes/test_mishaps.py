"""What goes wrong in one of many processes is told once, by whom it happened to, and ends all."""

import re
import socket

import pytest
import torch
from children import command
from processes.torchrun import HERE, finish, start

from fmaml import distributed
from fmaml.checkpoints.checkpoint_format import decode_checkpoint
from fmaml.checkpoints.resume_compatibility import check_compatible
from fmaml.config.load import load_config
from fmaml.errors import Error
from fmaml.training.preflight import check_same_facts

RUN = ["run", "sinusoid", "train.meta_steps=20", "train.validate_every=10", "train.validate_tasks=8", "eval.tasks=8"]
RUN += ["train.compile=false", "train.baseline=false", "eval.steps=1", "--device", "cpu"]


def own_part(said: str) -> str:
    """What the processes themselves said, before the launcher reports how they ended."""
    return said.partition("torch/distributed/elastic")[0]


@pytest.mark.parametrize("name", ["ValueError", "RuntimeError"])
def test_a_defect_in_one_process_is_told_with_its_traceback_alone(name):
    said = own_part(finish(start(2, str(HERE / "mishap.py"), name)))
    assert said.count("Traceback (most recent call last)") == 1, said
    assert f"{name}: the socket of the wall, a peer, a timeout" in said
    assert "rank 1 is gone" not in said
    assert "the launcher, or rank 0" not in said


def test_a_users_mistake_in_one_process_is_told_with_its_rank():
    said = own_part(finish(start(2, str(HERE / "mishap.py"), "Error")))
    assert "Error: rank 1: the socket of the wall" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["seed=RANK"],
            "fmaml: rank 1: seed differs (0 in rank 0, 1 here); start all processes with one command",
        ),
        (["optimizer.lr=0.1RANK"], "fmaml: rank 1: optimizer.lr differs (0.1 in rank 0, 0.11 here)"),
    ],
)
def test_processes_with_other_settings_are_refused(words, message, tmp_path):
    agent = start(2, str(HERE / "mishap.py"), *RUN, *words, "--out", str(tmp_path / "out"))
    said = finish(agent)
    assert agent.returncode != 0
    assert message in said
    assert own_part(said).count("fmaml:") == 1, said
    assert "Traceback" not in own_part(said)
    assert not list((tmp_path / "out").glob("*.ckpt"))


def test_with_restarts_the_first_start_goes_on_with_the_run_in_its_folder(tmp_path):
    out = str(tmp_path / "out")
    for steps, begun in (("train.meta_steps=10", False), ("train.meta_steps=20", True)):
        agent = start(2, "-m", "fmaml", *RUN, "train.schedule=constant", steps, "--out", out, max_restarts=2)
        said = finish(agent)
        assert agent.returncode == 0, said
        assert ("after step 10\n" in said) == begun, said


def test_nothing_of_the_connections_is_left_when_the_processes_have_parted():
    said = finish(start(2, str(HERE / "mishap.py"), "threads"))
    assert re.findall(r"threads: (\d+)", said) == ["0", "0"], said


@pytest.mark.parametrize("variables", [{}, {"MASTER_ADDR": "localhost", "MASTER_PORT": "free"}])
def test_who_cannot_join_says_so(variables, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {"RANK": "1", "WORLD_SIZE": "2", "FMAML_TIMEOUT": "2"}
    environment.update({name: value.replace("free", port) for name, value in variables.items()})
    ended = command(*RUN, "--out", str(tmp_path / "out"), environment=environment)
    assert ended.returncode == 1
    own = [line for line in ended.stderr.splitlines() if line.startswith("fmaml:")]
    assert len(own) == 1, ended.stderr
    assert re.match(r"fmaml: rank 1: cannot join the others \(.*\); start all processes with torchrun", own[0])
    assert "Traceback" not in ended.stderr


def test_all_hold_as_few_tasks_in_memory_as_the_one_with_the_least(tmp_path):
    out = tmp_path / "out"
    agent = start(2, str(HERE / "mishap.py"), "memory", *RUN, "--out", str(out))
    said = finish(agent)
    assert agent.returncode == 0, said
    assert said.count("out of memory in another process; continuing with 4 tasks at a time") == 1
    _, progress = decode_checkpoint(max((out / "checkpoints").iterdir()).read_bytes())
    assert progress["step_form"]["chunk_size"] == 4


def test_parts_of_a_digest_are_weighed(monkeypatch):
    """Numbers that have changed places are not the same, within a part of the digest and across parts."""
    sums: list[int] = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda extremes, op: sums.append(int(extremes[0])))
    monkeypatch.setattr(distributed, "DIGESTED_BYTES", 8)
    for numbers in ([1, 2, 3, 4, 5], [2, 1, 3, 4, 5], [3, 2, 1, 4, 5], [1, 2, 3, 4, 6], [1, 2, 3, 4, 5]):
        distributed.all_equal(torch.tensor(numbers, dtype=torch.float32))
    assert len({*sums[:4]}) == 4
    assert sums[4] == sums[0]


def test_a_run_whose_batch_is_for_each_says_how_many_tasks_its_steps_have(tmp_path):
    said: list[str] = []
    for each in ("each", "all"):
        config = load_config("sinusoid", [f"train.meta_batch_for={each}", "train.meta_batch=5"])
        two, three = ({"config": config, "machine": {"processes": count}} for count in (2, 3))
        check_compatible(tmp_path, two, three, said.append)
    assert said[0] == "machine.processes was 2 and is 3: a meta-step has 15 tasks from now on, and had 10"
    assert "in the last bits" in said[1]


def test_a_process_with_other_code_of_the_same_version_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "gather", lambda own: [own, own | {"fmaml's code": "another"}])
    with pytest.raises(Error, match=r"rank 1: fmaml's code differs \(\w{12} in rank 0, another here\)"):
        check_same_facts({"config": {}, "machine": {}})
    monkeypatch.setattr(distributed, "gather", lambda own: [own, own])
    check_same_facts({"config": {}, "machine": {}})
