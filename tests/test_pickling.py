"""Models, optimizers, losses and metrics reach another process whole: by cloudpickle they give the same bits.

Learners pickle by pickle itself, as classifiers do: `models/test_sklearn.py`. Algorithms are held to it in
`algorithms/test_all_algorithms.py`, sources in `data/test_all_sources.py`.
"""

import inspect
import multiprocessing
import pickle
from threading import Thread
from typing import Any, TypeVar, get_type_hints

import cloudpickle
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import fmaml
from examples.control.policy import policy
from fmaml import Task
from fmaml.config.build import Experiment, build
from fmaml.config.load import load_config
from fmaml.config.registry import TABLE
from fmaml.data.sources.sinusoid import sinusoid
from fmaml.modules.pretrained_networks import module
from fmaml.optim.optimizers import Schedule
from fmaml.outer import at_step
from fmaml.tree import leaves, take
from fmaml.unroll import params_of


def with_rate(params: fmaml.Params) -> Any:
    return {"params": params, "rate": torch.tensor(0.1)}


def rate_of(theta: Any) -> Tensor:
    return theta["rate"]


T = TypeVar("T")
CPU = torch.device("cpu")
NET = fmaml.mlp(inputs=(1,), outputs=1, hidden=[4])
LOSS = fmaml.supervised(NET.apply, fmaml.mse)
MAML = fmaml.maml(LOSS, inner_lr=0.1, steps=2)
MODELS = {
    "mlp": NET,
    "conv4": fmaml.conv4(inputs=(1, 16, 16), outputs=3, width=8, norm="layer"),
    "transformer": fmaml.transformer(inputs=(6,), outputs=5, width=8, heads=2),
    "resnet12": fmaml.resnet12(inputs=(1, 16, 16), outputs=3, width=2),
    "conv1d": fmaml.conv1d(inputs=(2, 32), outputs=3, width=4),
    "module": module(inputs=(1,), outputs=1, module="torch.nn:Linear", arguments={"in_features": 1, "out_features": 1}),
    "from_module, dropout": fmaml.from_module(nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1)), dropout="keyed"),
    "from_module": fmaml.from_module(nn.Sequential(nn.Linear(1, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 1))),
}
INPUTS = {
    "resnet12": torch.rand(3, 1, 16, 16),
    "conv1d": torch.rand(3, 2, 32),
    "conv4": torch.rand(3, 1, 16, 16),
    "transformer": torch.arange(12).view(2, 6) % 5,
}
OPTIMIZERS = {
    "sgd": fmaml.sgd(0.1),
    "momentum": fmaml.momentum(0.1, nesterov=True),
    "adam": fmaml.adam(fmaml.cosine(0.1, 10, warmup=2)),
    "adamw": fmaml.adamw(0.1),
    "from_torch": fmaml.from_torch(torch.optim.AdamW, lr=0.1),
    "average_params": fmaml.average_params(fmaml.sgd(0.1)),
    "track_statistics": fmaml.track_statistics(fmaml.sgd(0.1)),
    "chain": fmaml.chain(fmaml.clip_by_global_norm(0.1), fmaml.adam(0.1)),
    "clip_by_global_norm": fmaml.clip_by_global_norm(0.1),
}
FUNCTIONS = {  # of (params, batch) or (params, task)
    "supervised": (LOSS, 0),
    "transductive": (fmaml.transductive(NET.apply, fmaml.mse), 1),
    "inductive": (fmaml.inductive(NET.apply, fmaml.mse), 1),
}
OF_OTHERS = {  # algorithms that are made of one's own functions
    "unrolled": fmaml.unrolled(LOSS, rate_of, steps=2, init=with_rate, start=params_of),
}
BESIDE_THE_TABLE = {
    "first_then": fmaml.first_then(fmaml.maml(LOSS, inner_lr=0.1, steps=2, first_order=True), MAML, until=5),
    "multi_step": fmaml.multi_step(MAML, LOSS, until=5),
    "unrolled": fmaml.unrolled(LOSS, fmaml.momentum(0.1), steps=2, remat=True),
}


def again(value: T) -> T:
    return pickle.loads(cloudpickle.dumps(value))


def same(a: Any, b: Any) -> bool:
    pairs = list(zip(leaves(a), leaves(b), strict=True))
    return len(pairs) > 0 and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)


def waves(tasks: int = 3) -> Task:
    return sinusoid(seed=0, device=CPU, shots=4, queries=4).sample("train", 1, range(tasks))


def test_what_is_tested_here_is_everything_public_that_is_made_of_functions():
    made = {fmaml.Model, fmaml.Algorithm, fmaml.Optimizer, fmaml.Transform}
    factories = set()
    for name in fmaml.__all__:
        value = getattr(fmaml, name)
        if inspect.isfunction(value):
            returned = get_type_hints(value).get("return")
            origin = getattr(returned, "__origin__", returned)
            if origin in made or returned in (Schedule, fmaml.types.LossFn, fmaml.types.MetricFn):
                factories.add(name)
    tested = {*MODELS, *OPTIMIZERS, *FUNCTIONS, *BESIDE_THE_TABLE, *TABLE["algorithm"], "chain", "cosine"}
    assert {"maml", "conv4", "sgd", "cosine", "supervised", "transductive"} <= factories
    assert factories <= tested
    elsewhere = {"timm", "torchvision", "causal_lm"}  # tests/modules/
    assert {*TABLE["model"], *TABLE["optimizer"]} <= tested | elsewhere


@pytest.mark.parametrize("name", MODELS)
def test_a_model(name):
    model, x = MODELS[name], INPUTS.get(name, torch.randn(5, 1))
    copied = again(model)
    assert type(copied) is fmaml.Model
    params = model.init(torch.Generator().manual_seed(1))
    assert same(copied.init(torch.Generator().manual_seed(1)), params)
    assert same(copied.apply(params, x), model.apply(params, x))
    assert same(again(model.apply)(params, x), model.apply(params, x)), "one function of it by itself"


def test_a_model_of_ones_own():
    model, x = policy(inputs=(3,), outputs=4), torch.rand(3, 3)
    params = model.init(torch.Generator().manual_seed(1))
    assert same(again(model).init(torch.Generator().manual_seed(1)), params)
    assert same(again(model.apply)(params, x), model.apply(params, x))


@pytest.mark.parametrize("name", BESIDE_THE_TABLE)
def test_an_algorithm(name):
    theta = NET.init(torch.Generator().manual_seed(0))
    for step in (0, 7):
        one, other = (at_step(each, step) for each in (BESIDE_THE_TABLE[name], again(BESIDE_THE_TABLE[name])))
        assert same(fmaml.meta_grad(other, theta, waves()), fmaml.meta_grad(one, theta, waves()))


@pytest.mark.parametrize("name", OF_OTHERS)
def test_an_algorithm_of_ones_own_functions(name):
    one, other = OF_OTHERS[name], again(OF_OTHERS[name])
    theta = one.init(NET.init(torch.Generator().manual_seed(0)))
    assert same(other.init(theta["params"]), theta)
    assert same(fmaml.meta_grad(other, theta, waves()), fmaml.meta_grad(one, theta, waves()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer(name):
    one, other = OPTIMIZERS[name], again(OPTIMIZERS[name])
    assert type(other) is type(one)
    theta = {"p": torch.randn(3), "q": torch.randn(2, 2)}
    grads = {"p": torch.randn(3), "q": torch.randn(2, 2)}
    states = one.init(theta), other.init(theta)
    for _ in range(3):
        expected, found = (
            (each.step if isinstance(each, fmaml.Optimizer) else each.update)(grads, state, theta)
            for each, state in zip((one, other), states, strict=True)
        )
        assert same(found, expected)
        theta, states = expected[0], (expected[1], found[1])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_loss_and_a_metric(name):
    fn, of_a_task = FUNCTIONS[name]
    params, task = NET.init(torch.Generator().manual_seed(0)), take(waves(), 0)
    given = task if of_a_task else task.support
    assert same(again(fn)(params, given), fn(params, given))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_whole_experiment(precision):
    config = load_config("sinusoid", [f"train.precision={precision}", "train.schedule=cosine", "train.clip=1.0"])
    try:
        experiment = build(config, CPU)
        assert same(learnt(again(experiment)), learnt(experiment))
    finally:
        build(load_config("sinusoid", []), CPU)  # puts the precision of the process back


def learnt(experiment: Experiment) -> Any:
    """Two meta-steps of it."""
    algorithm, optimizer = experiment.algorithm, experiment.optimizer
    state = fmaml.init_state(algorithm, optimizer, experiment.model.init(torch.Generator().manual_seed(0)))
    for step in range(2):
        state, _ = fmaml.meta_step(algorithm, optimizer, state, experiment.source.sample("train", step, range(3)))
    return state.theta, state.opt_state


def test_a_learner_and_what_it_adapted_pickle_by_pickle_itself():
    learner, support = fmaml.load("omniglot_prototypes"), {name: torch.rand(2, 1, 28, 28) for name in "ab"}
    adapted, images = learner.adapt(support), torch.rand(3, 1, 28, 28)
    expected = adapted.predict(images).probabilities
    for copied in (pickle.loads(pickle.dumps(adapted)), pickle.loads(pickle.dumps(learner)).adapt(support)):
        assert torch.equal(copied.predict(images).probabilities, expected)


# What is pickled is what it is now


def twice(params: fmaml.Params, x: Tensor) -> Tensor:
    return 2 * NET.apply(params, x)


def test_what_was_replaced_stays_replaced():
    params, x = NET.init(torch.Generator()), torch.randn(3, 1)
    replaced = again(NET._replace(apply=twice))
    assert same(replaced.apply(params, x), twice(params, x))
    assert same(replaced.init(torch.Generator()), params)
    other = fmaml.maml(LOSS, inner_lr=0.3, steps=1)
    mixed, theta, support = again(MAML._replace(adapt=other.adapt)), params, take(waves(), 0).support
    assert same(mixed.adapt(theta, support), other.adapt(theta, support))
    assert not same(mixed.adapt(theta, support), MAML.adapt(theta, support))


def test_a_function_without_a_name_is_pickled_too():
    unnamed, params, support = fmaml.supervised(lambda params, x: 3 * x, fmaml.mse), {}, take(waves(), 0).support
    assert same(again(unnamed)(params, support), unnamed(params, support))


def test_a_list_that_the_caller_changes_later_changes_nothing():
    hidden, rates = [4], {name: 0.1 for name in NET.init(torch.Generator())}
    model = fmaml.mlp(inputs=(1,), outputs=1, hidden=hidden)
    algorithm = fmaml.maml(LOSS, inner_lr=rates, steps=1)
    params, support = model.init(torch.Generator()), take(waves(), 0).support
    phi = algorithm.adapt(params, support)
    hidden.append(8)
    rates["layer1.weight"] = 9.0
    for one, other in ((model, algorithm), (again(model), again(algorithm))):
        assert same(one.init(torch.Generator()), params)
        assert same(other.adapt(params, support), phi)


def test_a_module_that_the_caller_trains_later_changes_nothing():
    module = nn.Linear(1, 1)
    model = fmaml.from_module(module)
    params = model.init(torch.Generator())
    with torch.no_grad():
        module.weight.fill_(9)
    assert same(again(model).init(torch.Generator()), params)


class Pickled(nn.Module):
    """Another thread pickles its model during a call."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        thread = Thread(target=lambda: SEEN.append(again(SEEN[0]).init(torch.Generator())))
        thread.start()
        thread.join()
        return self.weight * x


SEEN: list[Any] = []


def test_a_module_is_pickled_as_it_was_given_even_during_a_call():
    model = fmaml.from_module(Pickled())
    SEEN[:] = [model]
    model.apply({"weight": torch.full((1,), 7.0)}, torch.ones(1))
    assert len(SEEN) > 1
    assert all(same(params, {"weight": torch.ones(1)}) for params in SEEN[1:])


# Other processes, which import everything anew


def step_of(pickled: bytes, theta: Any, step: int) -> list[Tensor]:
    """The meta-gradient and the loss of an experiment's own tasks."""
    experiment: Experiment = pickle.loads(pickled)
    grads, metrics = fmaml.meta_grad(experiment.algorithm, theta, experiment.source.sample("train", step, range(2)))
    return [*leaves(grads), metrics["query_loss"]]


class Gradients(Dataset):
    """The meta-gradients of an experiment, which the worker computes."""

    def __init__(self, pickled: bytes, theta: Any) -> None:
        self.pickled, self.theta = pickled, theta

    def __len__(self) -> int:
        return 2

    def __getitem__(self, step: int) -> list[Tensor]:
        return step_of(self.pickled, self.theta, step)


@pytest.fixture(scope="module")
def sent() -> tuple[bytes, Any]:
    """An experiment as bytes, and its initial parameters."""
    experiment = build(load_config("omniglot", ["data.name=glyphs", "model.width=8", "data.queries=1"]), CPU)
    return cloudpickle.dumps(experiment), experiment.model.init(torch.Generator().manual_seed(0))


def test_a_spawned_process_computes_the_same_bits(sent):
    pickled, theta = sent
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(step_of, (pickled, theta, 1))
    assert same(found, step_of(pickled, theta, 1))


def test_a_spawned_worker_of_a_data_loader_draws_the_same_tasks(sent):
    gradients = Gradients(*sent)
    loader = DataLoader(gradients, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert same(list(loader), [gradients[0], gradients[1]])
