"""What a launcher says, and what processes do with it before they join."""

import threading

import pytest
import torch
import torch.distributed as dist

from fmaml.cli.main import main
from fmaml.errors import Ended, Error, RunFailed
from fmaml.processes import join as module
from fmaml.processes.environment import pick_device
from fmaml.processes.join import Processes, map_over_ranks
from fmaml.processes.launcher import ALONE, Launched, check_launch, launched, report_once, time_limit


def test_the_variables_of_torchrun(monkeypatch):
    assert launched() == ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_MAX_RESTARTS")
    for value, name in zip((3, 6, 1, 4, 5), names, strict=True):
        monkeypatch.setenv(name, str(value))
    assert launched() == Launched(3, 6, 1, 4, 5)
    monkeypatch.setenv("LOCAL_RANK", "first")
    with pytest.raises(Error, match=r"LOCAL_RANK.*'first'; start the processes with torchrun"):
        launched()


@pytest.mark.parametrize(("rank", "count"), [("1", "1"), ("-1", "2"), ("0", "0"), ("5", "2")])
def test_ranks_that_cannot_be_are_refused(monkeypatch, rank, count):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", count)
    with pytest.raises(Error, match=f"RANK = {rank}.*WORLD_SIZE = {count}.*start the processes with torchrun"):
        launched()


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_a_time_limit_is_a_number_of_seconds(monkeypatch, text):
    assert time_limit() == 600
    monkeypatch.setenv("FMAML_TIMEOUT", "1.5")
    assert time_limit() == 1.5
    monkeypatch.setenv("FMAML_TIMEOUT", text)
    with pytest.raises(Error, match=f"FMAML_TIMEOUT = {text}: must be a number of seconds above 0, such as 600"):
        check_launch(ALONE, None)


def test_what_all_find_alike_is_told_by_the_first_of_a_machine():
    with pytest.raises(Error, match="wrong"), report_once(Launched(rank=8, local_rank=0)):
        raise Error("wrong")
    with pytest.raises(Ended), report_once(Launched(rank=9, local_rank=1)):
        raise Error("wrong")


def test_who_is_not_to_tell_ends_after_the_one_who_is(monkeypatch, capsys):
    waits = []
    monkeypatch.setattr("fmaml.cli.main.time.sleep", waits.append)
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert main(["run", "sinusoid", "train.meta_stepps=1"]) == 1
    assert waits == [Ended.grace_s]  # in which the launcher, which sees the first one end, stops this process
    assert "train.meta_stepps" in capsys.readouterr().err  # nobody has


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    here = Launched(rank=5, world_size=6, local_rank=2, local_size=3)
    with pytest.raises(Error, match="3 processes on this machine, 2 CUDA devices found; start one process a GPU"):
        pick_device("auto", here)
    assert pick_device("cpu", here) == torch.device("cpu")


def test_data_is_prepared_once_a_machine_and_the_others_wait(monkeypatch):
    store, order = dist.HashStore(), []  # pyright: ignore[reportPrivateImportUsage]
    first, second = (Processes(Launched(rank, 2, rank, 2), store) for rank in (0, 1))
    waiting = threading.Thread(target=lambda: second.first_on_machine(lambda: order.append("second")))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    first.first_on_machine(lambda: order.append("first"))
    waiting.join(300)
    assert order == ["first", "second"]
    monkeypatch.setattr(module, "PREPARATION_LIMIT_S", 0.1)
    other_machine = Processes(Launched(3, 4, 1, 2), store)
    with pytest.raises(RunFailed, match=r"rank 2 has not prepared the data in 0\.1 s"):
        other_machine.first_on_machine(lambda: None)
    store.set("failed", "2")
    with pytest.raises(Ended):
        other_machine.first_on_machine(lambda: None)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_part_is_computed_by_one_process_and_all_have_all_in_order(monkeypatch, count):
    parts, computed = list(range(7)), []
    monkeypatch.setattr(module.distributed, "world_size", lambda: count)
    everything = {part: part * part for part in parts}
    for rank in range(count):
        monkeypatch.setattr(module.distributed, "rank", lambda rank=rank: rank)
        turns = iter([parts[i : i + count] for i in range(0, 7, count)])

        def gather(value, turns=turns):
            turn = next(turns)
            return [(everything[turn[i]] if i < len(turn) else None, None) for i in range(count)]

        monkeypatch.setattr(module.distributed, "gather", gather)
        found = list(map_over_ranks(parts, lambda part: computed.append(part) or everything[part]))
        assert found == list(everything.items())
    assert sorted(computed) == parts
