"""With ``train.average`` the model is the moving average of theta, which a resumed run goes on with."""

from pathlib import Path

import pytest
import torch
from harness import fingerprint, finish, fork, run, uninterrupted, wait
from safetensors.torch import load_file

from fmaml.checkpoints import checkpoint_store
from fmaml.checkpoints.checkpoint_format import decode_checkpoint
from fmaml.checkpoints.checkpoint_store import checkpoint_files

DECAY = 0.75
AVERAGED = (f"train.average={DECAY}", "train.schedule=constant")
PLAIN = ("train.schedule=constant", "train.validate_every=100")


def model(folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """The parameters that a run ends with."""
    assert finish(folder, *overrides) == 0
    return load_file(folder / "last.safetensors")


def test_the_model_is_the_average_of_all_steps(tmp_path):
    thetas = [model(tmp_path / str(step), *PLAIN, f"train.meta_steps={step}") for step in range(1, 6)]
    averaged = model(tmp_path / "averaged", *AVERAGED, "train.meta_steps=5")
    for name, found in averaged.items():
        weights = [DECAY ** (5 - step) for step in range(1, 6)]
        terms = [weight * theta[name].double() for weight, theta in zip(weights, thetas, strict=True)]
        expected = torch.stack(terms).sum(0) / sum(weights)
        assert torch.allclose(found.double(), expected, atol=1e-7)
        assert not torch.equal(found, thetas[-1][name])


def test_theta_itself_takes_the_same_steps(tmp_path):
    last = model(tmp_path / "plain", *PLAIN, "train.meta_steps=5")
    model(tmp_path / "averaged", *AVERAGED, "train.meta_steps=5")
    tensors, _ = decode_checkpoint(checkpoint_files(tmp_path / "averaged/checkpoints")[0].read_bytes())
    assert all(torch.equal(tensors[f"theta.{name}"], value) for name, value in last.items())


def test_what_is_validated_is_the_average(tmp_path):
    """The best of the validations is the last here, so the best model is the average at the end."""
    last = model(tmp_path / "out", *AVERAGED)
    best = load_file(tmp_path / "out/best.safetensors")
    assert all(torch.equal(best[name], value) for name, value in last.items())


@pytest.mark.parametrize("step", [3, 10])
def test_an_interrupted_run_has_the_same_average(tmp_path, step):
    def work() -> int:
        save = checkpoint_store.CheckpointStore.save

        def dying(self, progress):
            save(self, progress)
            if progress.state.step >= step:
                raise KeyboardInterrupt

        checkpoint_store.CheckpointStore.save = dying
        return run(tmp_path / "out", *AVERAGED)

    assert wait(fork(work)) == 99
    assert finish(tmp_path / "out", *AVERAGED) == 0
    assert fingerprint(tmp_path / "out") == uninterrupted(*AVERAGED)
