"""Dropout by keys: a pure function of key, call and example, right under any batching and to second order."""

from typing import Any

import pytest
import torch
from problems import F64, relative
from torch import Tensor, nn
from torch.nn import functional as F

import fmaml
from fmaml import Batch, Keyed, Task
from fmaml.rng import fold, uniform
from fmaml.tree import map_leaves

TASKS, N = 3, 4


class Network(nn.Module):
    """Two kinds of dropout, in a layer and in a call, between convolution and head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 2)
        self.layer = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        maps = F.dropout2d(torch.tanh(self.conv(x)), 0.25, self.training)
        return self.head(self.layer(maps.mean((2, 3))))


def tasks_of(step: int = 1) -> Task:
    x, y = torch.rand(TASKS, N, 1, 5, 5, dtype=F64), torch.rand(TASKS, N, 2, dtype=F64)
    return fmaml.with_keys(Task(Batch(x, y), Batch(x + 1, y)), seed=0, step=step)


def keyed_model(module: nn.Module | None = None) -> tuple[fmaml.Model, fmaml.Params]:
    model = fmaml.from_module((module or Network()).double(), dropout="keyed")
    return model, model.init(torch.Generator())


def test_it_is_the_mask_of_its_formula():
    module = nn.Sequential(nn.Dropout(0.4), nn.Linear(6, 2, bias=False))
    model, params = keyed_model(module)
    x, keys = torch.rand(5, 6, dtype=F64), torch.arange(5) * 10**12
    kept = uniform(fold(fold(keys[:, None], 0), torch.arange(6))) >= 0.4
    expected = (x * kept / 0.6) @ params["1.weight"].T
    assert relative(model.apply(params, Keyed(x, keys)), expected) < 1e-15
    assert torch.equal(model.apply(params, x), x @ params["1.weight"].T)  # without keys nothing is dropped


def test_the_share_that_is_dropped_and_no_relation_between_calls():
    twice = nn.Sequential(nn.Dropout(0.3), nn.Identity(), nn.Dropout(0.3), nn.Linear(1000, 1))
    model, params = keyed_model(twice)
    params = map_leaves(torch.ones_like, params)
    x = torch.ones(1000, 1000, dtype=F64)
    first = fmaml.from_module(nn.Sequential(nn.Dropout(0.3), nn.Linear(1000, 1000)).double(), dropout="keyed")
    eye = {"1.weight": torch.eye(1000, dtype=F64), "1.bias": torch.zeros(1000, dtype=F64)}
    kept = first.apply(eye, Keyed(x, torch.arange(1000))) > 0
    assert abs(kept.double().mean() - 0.7) < 4 * (0.21 / 1e6) ** 0.5
    both = (model.apply(params, Keyed(x, torch.arange(1000))).mean() - 1) * 0.49 / 1000  # those that both calls keep
    assert abs(both - 0.49) < 4 * (0.25 / 1e6) ** 0.5


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_a_meta_gradient_is_that_of_the_masks_written_out(batching):
    model, params = keyed_model()
    tasks = tasks_of()

    def written_out(params, batch):
        x, keys = batch.x
        maps = torch.tanh(F.conv2d(x, params["conv.weight"], params["conv.bias"], padding=1))
        maps = maps * (uniform(fold(fold(keys[:, None], 0), torch.arange(8))) >= 0.25)[..., None, None] / 0.75
        hidden = maps.mean((2, 3)) * (uniform(fold(fold(keys[:, None], 1), torch.arange(8))) >= 0.3) / 0.7
        return fmaml.mse(hidden @ params["head.weight"].T + params["head.bias"], batch.y)

    ours = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.3, steps=2)
    theirs = fmaml.maml(written_out, inner_lr=0.3, steps=2)
    grads = fmaml.meta_grad(ours, params, tasks, batching=batching)[0]
    expected = fmaml.meta_grad(theirs, params, tasks, batching="loop")[0]
    for name, value in expected.items():
        assert relative(grads[name], value) < 1e-13, name


def test_each_seed_step_task_set_and_example_has_its_own_keys():
    tasks = [fmaml.with_keys(tasks_of(), seed=seed, step=step) for seed, step in ((0, 1), (0, 2), (1, 1))]
    keys = torch.cat([part.x.keys.flatten() for task in tasks for part in task])
    assert len(keys.unique()) == 3 * 2 * TASKS * N
    later = fmaml.with_keys(tasks_of(), seed=0, step=1, first=1)
    assert torch.equal(later.query.x.keys[:-1], tasks[0].query.x.keys[1:])


def test_examples_alone_and_together():
    model, params = keyed_model()
    x, keys = tasks_of().query.x
    together = model.apply(params, Keyed(x[0], keys[0]))
    alone = torch.cat([model.apply(params, Keyed(x[0, i : i + 1], keys[0, i : i + 1])) for i in range(N)])
    assert relative(together, alone) < 1e-14
    other = model.apply(params, Keyed(x[0], keys[0] + 1))
    assert not torch.allclose(together, other)


def test_a_language_model_in_training(gpt2):
    from transformers import AutoModelForCausalLM

    language_model: Any = AutoModelForCausalLM.from_pretrained(gpt2, attn_implementation="eager")
    model = fmaml.from_module(language_model.double().train(), output="logits", dropout="keyed", trainable=["*.h.1.*"])
    params = model.init(torch.Generator())
    symbols = torch.randint(256, (TASKS, N, 8))
    batch = Batch({"input_ids": symbols}, symbols)
    tasks = fmaml.with_keys(Task(batch, batch), seed=0, step=0)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=1)
    vmapped, looped = (fmaml.meta_grad(algorithm, params, tasks, batching=how)[0] for how in ("vmap", "loop"))
    still = fmaml.meta_grad(algorithm, params, Task(batch, batch), batching="loop")[0]
    assert max(relative(vmapped[name], value) for name, value in looped.items()) < 1e-13
    assert max(relative(still[name], value) for name, value in looped.items()) > 0.1


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.AlphaDropout(0.5), "AlphaDropout.*use p=0, .eval\\(\\), or nn.Dropout with dropout='keyed'"),
        (nn.MultiheadAttention(4, 2, dropout=0.5), "has dropout; use dropout=0"),
    ],
)
def test_what_keys_cannot_do_is_refused_by_name(module, message):
    with pytest.raises(ValueError, match=message):
        fmaml.from_module(nn.Sequential(module, nn.Linear(4, 4)), dropout="keyed")
    with pytest.raises(ValueError, match="dropout = 'maybe': must be 'refuse' or 'keyed'"):
        fmaml.from_module(nn.Linear(4, 4), dropout="maybe")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("layer", "shape", "kept"),
    [
        (nn.Dropout1d(0.5), (N, 6, 5), 2),
        (nn.Dropout2d(0.5), (N, 6, 5), 2),  # of three axes torch drops channels too
        (nn.Dropout2d(0.5), (N, 6, 5, 5), 2),
        (nn.Dropout3d(0.5), (N, 6, 5, 5, 5), 2),
    ],
)
def test_whole_channels_are_dropped(layer, shape, kept):
    model = fmaml.from_module(nn.Sequential(layer), dropout="keyed")
    y = model.apply({}, Keyed(torch.ones(shape), torch.arange(N))).flatten(kept)
    assert (y == y[..., :1]).all()
    assert 0 < (y[..., 0] == 0).float().mean() < 1
    assert any(0 < dropped < shape[1] for dropped in (y[..., 0] == 0).sum(1).tolist())
