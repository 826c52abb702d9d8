"""Losses and metrics of one's own: right, or refused with a cure that works, vmapped and looped."""

# wrong types are given on purpose, and torch's stubs are incomplete:
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAssertAlwaysTrue=false

import pytest
import torch
from problems import F64, relative
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import fmaml
from fmaml import Batch, Task
from fmaml.torch_fixes.own_code import is_foreign
from fmaml.tree import take

LR, STEPS, TASKS = 0.1, 2, 3


@pytest.fixture(autouse=True)
def in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def classes() -> Task:
    return Task(*(Batch(torch.randn(TASKS, n, 5), torch.randint(3, (TASKS, n))) for n in (4, 3)))


def theta() -> fmaml.Params:
    return {"w": torch.randn(3, 5), "b": torch.randn(3)}


def output(p, x):
    return F.linear(x, p["w"], p["b"])


def of(criterion):
    return lambda p, batch: criterion(output(p, batch.x), batch.y)


def by_autograd(loss, params, tasks, first_order=False):
    start = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
    total = torch.zeros(())
    for i in range(TASKS):
        task, p = take(tasks, i), dict(start)
        for _ in range(STEPS):
            grads = torch.autograd.grad(loss(p, task.support), [*p.values()], create_graph=not first_order)
            p = {name: v - LR * g for (name, v), g in zip(p.items(), grads, strict=True)}
        total = total + loss(p, task.query) / TASKS
    return dict(zip(start, torch.autograd.grad(total, list(start.values())), strict=True))


def found(loss, params, tasks, batching, **options):
    algorithm = fmaml.maml(loss, inner_lr=LR, steps=STEPS, **options)
    return fmaml.meta_grad(algorithm, params, tasks, batching=batching)[0]


def distances(out):
    return (out[:, None] - 2 * torch.eye(3)).square().sum(-1).sqrt()


def each_class(out, y):
    return torch.stack([F.cross_entropy(out[y == c], y[y == c]) for c in y.unique()]).mean()


def by_gaussian(out, y):
    return F.gaussian_nll_loss(out[:, 0], y.double(), F.softplus(out[:, 1]) + 0.1)


def by_bags(p, batch):
    return F.cross_entropy(F.embedding_bag((batch.x > 0).long(), p["w"][:, :3]).tanh() + p["b"], batch.y)


ONLY_LOOPED = {  # refused vmapped; its cure, a loop, equals plain autograd
    "one_hot": of(lambda out, y: (out.softmax(-1) - F.one_hot(y, 3)).square().mean()),
    "unique": of(each_class),
    "gaussian": of(by_gaussian),
    "item": of(lambda out, y: F.cross_entropy(out, y) / (1 + y.double().mean().item())),
    "branch": of(lambda out, y: F.cross_entropy(out, y) * (2 if y.sum() > 2 else 1)),
    "mask": of(lambda out, y: F.cross_entropy(out[y > 0], y[y > 0], reduction="sum")),
    "nonzero": of(lambda out, y: out[y.nonzero()].square().sum()),
}
NO_SECOND = {  # refused in both modes; with its cure, first order, it equals plain autograd of first order
    "cdist": of(lambda out, y: F.cross_entropy(-torch.cdist(out, 2 * torch.eye(3)), y)),
    "pdist": of(lambda out, y: F.pdist(out).mean()),
    "multi_margin_loss": of(lambda out, y: F.multi_margin_loss(out, y)),
    "embedding_bag": by_bags,
    "ctc_loss": of(
        lambda out, y: F.ctc_loss(
            out.log_softmax(-1)[:, None], torch.ones(1, 2).long(), torch.tensor([len(out)]), torch.tensor([1])
        )
    ),
}


@pytest.mark.parametrize("name", ONLY_LOOPED)
def test_a_loss_that_vmap_cannot_run_names_the_line_and_the_loop_which_is_right(name):
    loss, params, tasks = ONLY_LOOPED[name], theta(), classes()
    with pytest.raises(
        ValueError, match=r'your code, test_own_losses.py:\d+, .*: torch cannot vmap it; use batching="loop"'
    ):
        found(loss, params, tasks, "vmap")
    assert relative(found(loss, params, tasks, "loop"), by_autograd(loss, params, tasks)) < 1e-12


def has_second_derivative(loss, params, tasks) -> bool:
    """Whether torch's own autograd has it."""
    try:
        by_autograd(loss, params, tasks)
    except (RuntimeError, NotImplementedError):
        return False
    return True


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", NO_SECOND)
def test_a_loss_without_a_second_derivative_names_first_order_which_is_right(name):
    loss, params, tasks = NO_SECOND[name], theta(), classes()
    if has_second_derivative(loss, params, tasks):  # of cdist and pdist in torch 2.14
        for batching in ("vmap", "loop"):
            assert relative(found(loss, params, tasks, batching), by_autograd(loss, params, tasks)) < 1e-12
        return
    for batching in ("vmap", "loop"):
        with pytest.raises(ValueError, match=r"use (first_order=True|batching=)"):
            found(loss, params, tasks, batching)
    with pytest.raises(ValueError, match=rf"{name}.* has no second derivative in torch; use first_order=True"):
        found(loss, params, tasks, "loop")
    right = by_autograd(loss, params, tasks, first_order=True)
    assert relative(found(loss, params, tasks, "loop", first_order=True), right) < 1e-12


def test_distances_in_plain_operations_are_right():
    loss, tasks, params = of(lambda out, y: F.cross_entropy(-distances(out), y)), classes(), theta()
    right = by_autograd(loss, params, tasks)
    for batching in ("vmap", "loop"):
        assert relative(found(loss, params, tasks, batching), right) < 1e-12


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_fused_attention_names_the_plain_kernel_which_is_right():
    def loss(p, batch):
        out = output(p, batch.x)[None, None]
        return F.scaled_dot_product_attention(out, out, out).square().mean()

    def plain(p, batch):
        with sdpa_kernel(SDPBackend.MATH):
            return loss(p, batch)

    params = {name: p.float() for name, p in theta().items()}  # the fused kernel of a CPU
    tasks = Task(*(batch._replace(x=batch.x.float()) for batch in classes()))
    right = by_autograd(plain, params, tasks)
    for batching in ("vmap", "loop"):
        with pytest.raises(ValueError, match=r"no second derivative; call it within .*sdpa_kernel"):
            found(loss, params, tasks, batching)
        assert relative(found(plain, params, tasks, batching), right) < 1e-5


def test_noise_names_the_loop_and_noise_in_x_which_work():
    tasks, params = classes(), theta()
    with pytest.raises(ValueError, match=r'does not draw random numbers; use batching="loop", or draw them before'):
        found(lambda p, b: F.cross_entropy(output(p, b.x + torch.randn(b.x.shape)), b.y), params, tasks, "vmap")
    assert found(lambda p, b: output(p, b.x + torch.randn(b.x.shape)).square().mean(), params, tasks, "loop")
    given = Task(*(batch._replace(x=(batch.x, torch.randn_like(batch.x))) for batch in tasks))
    loss = lambda p, b: F.cross_entropy(output(p, b.x[0] + b.x[1]), b.y)  # noqa: E731
    right = by_autograd(loss, params, given)
    assert all(relative(found(loss, params, given, batching), right) < 1e-12 for batching in ("vmap", "loop"))


EXACT = {  # torch's derivative is wrong; right in plain operations
    "weight norm": (
        of(lambda out, y: torch._weight_norm(out, out.new_ones(len(out), 1), 0)[:, 0].pow(3).sum()),
        of(lambda out, y: (out / out.square().sum(1, keepdim=True).sqrt())[:, 0].pow(3).sum()),
    ),
    "sinc": (
        lambda p, b: (torch.sinc(b.x @ p["w"].T * 0 + p["b"] - p["b"].detach()) * p["w"].sum()).sum(),
        lambda p, b: ((1 - (torch.pi * (p["b"] - p["b"].detach())) ** 2 / 6) * p["w"].sum() * len(b.x)).sum(),
    ),
    "padding": (
        lambda p, b: F.embedding(b.y, p["w"], padding_idx=0).pow(3).sum() + p["b"].sum(),
        lambda p, b: (
            (p["w"][b.y] * (b.y > 0)[:, None]).pow(3).sum()
            + (p["w"][b.y].detach() * (b.y == 0)[:, None]).pow(3).sum()
            + p["b"].sum()
        ),
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_wrong_derivatives_of_torch_are_replaced_on_all_paths(name):
    loss, plain = EXACT[name]
    tasks, params = classes(), theta()
    right = by_autograd(plain, params, tasks)
    algorithm = fmaml.maml(loss, inner_lr=LR, steps=STEPS)
    for batching in ("vmap", "loop"):
        assert relative(fmaml.meta_grad(algorithm, params, tasks, batching=batching)[0], right) < 1e-12
        leaves = {key: p.clone().requires_grad_() for key, p in params.items()}
        fmaml.meta_loss(algorithm, leaves, tasks, batching=batching)[0].backward()
        assert relative({key: p.grad for key, p in leaves.items()}, right) < 1e-12


def test_a_hook_on_an_activation_is_refused_with_a_cure_that_works():
    def hooked(out, y):
        out.register_hook(lambda g: 0.5 * g)
        return F.cross_entropy(out, y)

    def scaled(out, y):
        return F.cross_entropy(0.5 * out + 0.5 * out.detach(), y)

    tasks, params = classes(), theta()
    right = by_autograd(of(hooked), params, tasks, first_order=True)
    for batching in ("vmap", "loop"):
        with pytest.raises(ValueError, match=r"Tensor.register_hook.*to scale a gradient by c, write c \* h"):
            found(of(hooked), params, tasks, batching)
        assert relative(found(of(scaled), params, tasks, batching, first_order=True), right) < 1e-12


IGNORES = {
    "maml": lambda loss: fmaml.maml(loss, inner_lr=LR, steps=STEPS),
    "first order": lambda loss: fmaml.maml(loss, inner_lr=LR, steps=STEPS, first_order=True),
    "remat": lambda loss: fmaml.maml(loss, inner_lr=LR, steps=STEPS, remat=True),
    "no steps": lambda loss: fmaml.maml(loss, inner_lr=LR, steps=0),
    "reptile": lambda loss: fmaml.reptile(loss, inner_lr=LR, steps=STEPS),
    "anil": lambda loss: fmaml.anil(loss, inner_lr=LR, steps=STEPS, only=("weight",)),
}


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("name", IGNORES)
def test_a_loss_that_ignores_its_parameters_is_refused_with_a_cure_that_works(name, batching):
    net, tasks = nn.Linear(5, 3), classes()
    params = {key: p.detach() for key, p in net.named_parameters()}
    wrong = IGNORES[name](lambda params, batch: F.cross_entropy(net(batch.x), batch.y))
    with pytest.raises(ValueError, match="the loss does not depend on its parameters"):
        fmaml.meta_grad(wrong, params, tasks, batching=batching)
    right = IGNORES[name](lambda p, batch: F.cross_entropy(functional_call(net, p, (batch.x,)), batch.y))
    assert any((g != 0).any() for g in fmaml.meta_grad(right, params, tasks, batching=batching)[0].values())


def test_a_loss_with_detached_parameters_is_refused():
    loss = of(lambda out, y: F.cross_entropy(out.detach(), y))
    with pytest.raises(ValueError, match="the loss does not depend on its parameters"):
        found(loss, theta(), classes(), "vmap")


METRICS = {
    "item": lambda p, task: F.cross_entropy(output(p, task.query.x), task.query.y).item(),
    "numpy": lambda p, task: torch.tensor((output(p, task.query.x).numpy().argmax(1) == task.query.y.numpy()).mean()),
    "numbers by name": lambda p, task: {"a": output(p, task.query.x).sum().item(), "b": task.query.y.sum()},
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_that_vmap_cannot_run_names_the_loop_which_works(name):
    algorithm, tasks, params = fmaml.maml(of(F.cross_entropy), inner_lr=LR, steps=STEPS), classes(), theta()
    with pytest.raises(ValueError, match=r'your code, test_own_losses.py:\d+, .*use batching="loop"'):
        fmaml.evaluate(algorithm, METRICS[name], params, tasks)
    scores = fmaml.evaluate(algorithm, METRICS[name], params, tasks, batching="loop")
    scores = scores["a"] if isinstance(scores, dict) else scores
    assert scores.shape == (TASKS, STEPS + 1)
    last = METRICS[name](algorithm.adapt(params, take(tasks, 1).support), take(tasks, 1))
    assert float(scores[1, -1]) == pytest.approx(float(last["a"] if isinstance(last, dict) else last))


def test_labels_beyond_the_outputs_are_refused_with_a_cure_that_works():
    tasks, params = classes(), theta()
    wrong = Task(*(batch._replace(y=batch.y + 3) for batch in tasks))
    right = Task(
        *(batch._replace(y=torch.stack([y.unique(return_inverse=True)[1] for y in batch.y])) for batch in wrong)
    )
    for batching in ("vmap", "loop"):
        with pytest.raises(ValueError, match=r"a label y is beyond the outputs: \d; number the classes"):
            found(of(fmaml.cross_entropy), params, wrong, batching)
        assert found(of(fmaml.cross_entropy), params, right, batching)


def test_inputs_of_other_forms_are_refused_with_cures_that_work():
    t, net = classes(), nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    pairs = tuple(tuple(batch) for batch in t)
    algorithm = fmaml.maml(of(F.cross_entropy), inner_lr=LR, steps=STEPS)
    for tasks in (pairs, {"train": pairs[0], "test": pairs[1]}, Task(*pairs)):
        with pytest.raises(ValueError, match=r"give fmaml.Task\(fmaml.Batch\(\*support\), fmaml.Batch\(\*query\)\)"):
            fmaml.meta_grad(algorithm, theta(), tasks)
    assert fmaml.meta_grad(algorithm, theta(), Task(*(Batch(*pair) for pair in pairs)))
    model = fmaml.from_module(net, running_stats="batch")
    algorithm = fmaml.maml(fmaml.supervised(model.apply, F.cross_entropy), inner_lr=LR, steps=STEPS)
    with pytest.raises(ValueError, match=r"give dict\(module.named_parameters\(\)\)"):
        fmaml.meta_grad(algorithm, net.state_dict(), t)
    assert fmaml.meta_grad(algorithm, dict(net.named_parameters()), t)
    inner = fmaml.maml(of(F.cross_entropy), inner_lr=fmaml.from_torch(torch.optim.Adam), steps=STEPS)
    for batching in ("vmap", "loop"):
        with pytest.raises(ValueError, match=r"no derivative; use fmaml.adam"):
            fmaml.meta_grad(inner, theta(), t, batching=batching)
    with pytest.raises(ValueError, match=r"give from_torch\(torch.optim.Adam, lr=..\)"):
        fmaml.from_torch(torch.optim.Adam(net.parameters()))
    with pytest.raises(ValueError, match=r"steps = 2\.0: must be an integer"):
        fmaml.meta_grad(fmaml.maml(of(F.cross_entropy), inner_lr=LR, steps=2.0), theta(), t)


@pytest.mark.parametrize(
    "model",
    [
        fmaml.mlp(inputs=(1,), outputs=1),
        fmaml.mlp(inputs=(1,), outputs=1, activation="tanh"),
        fmaml.conv4(inputs=(1, 28, 28), outputs=5),
        fmaml.conv1d(inputs=(1, 64), outputs=5),
        fmaml.resnet12(inputs=(3, 32, 32), outputs=5),
        fmaml.transformer(inputs=(16,), outputs=20),
    ],
)
def test_only_code_of_others_pays_for_replaced_functions(model):
    """To look up each call of a torch function takes a twelfth of a step of the sinusoid network."""
    for criterion, others in ((fmaml.mse, False), (F.mse_loss, True), (lambda y, target: y.sum(), True)):
        algorithm = fmaml.maml(fmaml.supervised(model.apply, criterion), inner_lr=LR, steps=1)
        assert is_foreign(algorithm.loss) is others
