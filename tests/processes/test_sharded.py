"""An optimizer's state divided over processes: the same bits, a part of the memory, saved and read by any number."""

import pytest
import torch
from processes.torchrun import HERE, finish, start

import fmaml
from fmaml.checkpoints.checkpoint_format import decode_checkpoint
from fmaml.cli.main import main
from fmaml.optim.sharded import STRETCH, sharded


def test_it_takes_the_same_steps_in_any_number_of_processes(tmp_path):
    before: list[str] = []
    for processes in (1, 2, 3):
        out = str(tmp_path / f"{processes}.pt")
        agent = start(processes, str(HERE / "sharded_theta.py"), out, *before)
        said = finish(agent)
        assert agent.returncode == 0, said
        before = [out]


RUN = ["-m", "fmaml", "run", "sinusoid", "train.shard_optimizer=true", "train.validate_every=10", "--device", "cpu"]
RUN += ["train.validate_tasks=8", "train.schedule=constant", "train.compile=false", "train.baseline=false"]
RUN += ["eval.tasks=8", "eval.steps=1"]


def test_a_run_with_it_goes_on_in_any_number_of_processes(tmp_path):
    out = str(tmp_path / "out")
    for processes, steps in ((2, 10), (3, 20)):
        agent = start(processes, *RUN, f"train.meta_steps={steps}", "--out", out, "--resume")
        said = finish(agent)
        assert agent.returncode == 0, said
    assert main([*RUN[2:], "train.meta_steps=30", "--out", out, "--resume"]) == 0
    plain = [word for word in RUN[2:] if "shard" not in word]
    assert main([*plain, "train.meta_steps=30", "--out", str(tmp_path / "plain")]) == 0
    ours, theirs = (fmaml.load(tmp_path / name / "last.safetensors").theta for name in ("out", "plain"))
    assert all(torch.allclose(value, theirs[name], rtol=0, atol=1e-5) for name, value in ours.items())
    tensors, _ = decode_checkpoint(max((tmp_path / "out" / "checkpoints").iterdir()).read_bytes())
    numbers = sum(value.numel() for value in theirs.values())
    state = {name: value.numel() for name, value in tensors.items() if STRETCH in name}
    assert state
    assert {*state.values()} == {numbers}  # that of all processes


def test_a_state_that_overflows_is_seen_in_theta():
    optimizer, theta = sharded(fmaml.adam(1e-3)), {"p": torch.ones(2)}
    grads = {"p": torch.tensor([1e30, 1.0])}  # its square is infinite, and Adam's step then 0
    assert optimizer.update(grads, optimizer.init(theta), theta)[0]["p"].isnan().all()
    plain = fmaml.adam(1e-3)
    assert plain.update(grads, plain.init(theta), theta)[0]["p"].isfinite().all()


def test_numbers_of_two_types_are_refused():
    theta = {"p": torch.ones(2), "q": torch.ones(2, dtype=torch.float64)}
    with pytest.raises(ValueError, match=r"theta has numbers of torch\.float32 and torch\.float64; give all one type"):
        sharded(fmaml.adam(1e-3)).init(theta)
