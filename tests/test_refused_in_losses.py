"""Losses with calls that torch.func cannot take: each is refused with a cure, and the cure equals plain autograd."""

# wrong types are given on purpose:
# pyright: reportArgumentType=false, reportCallIssue=false, reportUndefinedVariable=false

import pytest
import torch
from problems import relative
from test_own_losses import LR, STEPS, by_autograd, classes, found, in_float64, of, output, theta  # noqa: F401
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.func import grad
from torch.nn import functional as F

import fmaml


def in_context(make):
    def loss(p, batch):
        with make():
            return F.cross_entropy(output(p, batch.x), batch.y)

    return loss


def kept_hooks():
    return saved_tensors_hooks(lambda x: x, lambda x: x)


def zeta(out, y):
    return torch.special.zeta(out.square() + 2, torch.ones(())).mean()


def igamma(out, y):
    return torch.special.gammainc(out.square() + 1, torch.ones(())).mean()


def igammac(out, y):
    return torch.igammac(out.square() + 1, torch.ones(())).mean()


def series(out, y):  # the first terms of zeta
    return sum((n ** -(out.square() + 2)).mean() for n in range(1, 40))


def backward(out, y):
    loss = F.cross_entropy(out, y)
    loss.backward()
    return loss


def penalised(p, batch):
    q = {name: v.detach().requires_grad_() for name, v in p.items()}
    F.cross_entropy(output(q, batch.x), batch.y).backward()
    return q["w"].grad.square().sum()


def penalised_by_func(p, batch):
    loss = of(F.cross_entropy)
    return loss(p, batch) + grad(lambda w: loss({**p, "w": w}, batch))(p["w"]).square().sum()


def exponential(out, y):
    h = out.exp()
    h += 1
    return h.square().mean().log() + out.mean()


def apart(out, y):
    return (out.exp() + 1).square().mean().log() + out.mean()


def nested(out, y):
    return torch.nested.nested_tensor([out[0], out[1]]).to_padded_tensor(0).square().sum()


def jagged(out, y):
    return torch.nested.as_nested_tensor([out[0], out[1]], layout=torch.jagged).values().square().sum()


def padded(out, y):
    return (out * (torch.arange(len(out)) < 2)[:, None]).square().sum()


compiled = torch.compile(of(F.cross_entropy), backend="eager")
HOOKS = "calls no hooks on saved tensors, as of save_on_cpu; leave the hooks out"
WITHIN = (
    "by .backward() within a function; return the loss without it; for a derivative in the loss use torch.func.grad"
)
ONE = "has no derivative in torch by one of its arguments; write it in plain operations of torch, or give it a constant"
constant = of(lambda out, y: zeta(out.detach(), y) * F.cross_entropy(out, y))
PADDED = "has no rule for nested tensors; give padded sequences, and a mask of the values"
REFUSED = {  # name: (the loss, its message, the cured losses)
    "save_on_cpu": (in_context(save_on_cpu), HOOKS, [of(F.cross_entropy)]),
    "saved tensors": (in_context(kept_hooks), HOOKS, [of(F.cross_entropy)]),
    "zeta": (of(zeta), f"zeta {ONE}", [of(series), constant]),
    "igamma": (of(igamma), f"igamma {ONE}", [of(lambda out, y: igamma(out.detach(), y) * out.mean())]),
    "igammac": (of(igammac), f"igammac {ONE}", [of(lambda out, y: igammac(out.detach(), y) * out.mean())]),
    "backward": (of(backward), WITHIN, [of(F.cross_entropy), penalised_by_func]),
    "backward of a copy": (penalised, "use torch.func.grad(f)(x)", [penalised_by_func]),
    "in place": (of(exponential), "in place changes numbers that a derivative needs; write it without", [of(apart)]),
    "nested": (of(nested), PADDED, [of(padded)]),
    "jagged": (of(jagged), PADDED, [of(padded)]),
    "compiled": (compiled, "give the function itself, and compile the call of meta_grad", [of(F.cross_entropy)]),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_has_no_rule_is_refused_with_cures_that_work(name):
    wrong, message, cures = REFUSED[name]
    tasks, params = classes(), theta()
    for batching in ("vmap", "loop"):
        for first_order in (False, True):
            with pytest.raises(ValueError, match=r"^your code.*: ") as error:
                found(wrong, params, tasks, batching, first_order=first_order)
            assert message in str(error.value)
        for cured in cures:
            right = by_autograd(cured, params, tasks) if cured is not penalised_by_func else None
            given = found(cured, params, tasks, batching)
            assert right is None or relative(given, right) < 1e-12


def test_the_advised_memory_saving_equals_the_usual_gradient():
    tasks, params = classes(), theta()
    usual = found(of(F.cross_entropy), params, tasks, "vmap")
    assert relative(found(of(F.cross_entropy), params, tasks, "vmap", remat=True), usual) < 1e-12


def test_a_derivative_in_the_loss_equals_finite_differences():
    tasks, params = classes(), theta()
    algorithm, h = fmaml.maml(penalised_by_func, inner_lr=LR, steps=STEPS), 1e-5
    for batching in ("vmap", "loop"):
        slope = fmaml.meta_grad(algorithm, params, tasks, batching=batching)[0]["b"][0]
        moved = [{**params, "b": params["b"] + torch.tensor([s, 0, 0])} for s in (h, -h)]
        ends = [fmaml.meta_loss(algorithm, p, tasks, batching=batching)[0] for p in moved]
        assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / (2 * h), rel=1e-6)


def test_a_compiled_call_of_meta_grad_is_right():
    algorithm, tasks, params = fmaml.maml(of(F.cross_entropy), inner_lr=LR, steps=1), classes(), theta()
    step = torch.compile(lambda p, t: fmaml.meta_grad(algorithm, p, t)[0], backend="eager", fullgraph=True)
    assert relative(step(params, tasks), fmaml.meta_grad(algorithm, params, tasks)[0]) < 1e-12


def test_a_compiled_loss_without_the_fault_is_right():
    """torch traces it with other compilers, and calls the function itself within torch.func."""
    loss, tasks, params = torch.compile(of(F.cross_entropy), backend="aot_eager"), classes(), theta()
    right = by_autograd(of(F.cross_entropy), params, tasks)
    assert all(relative(found(loss, params, tasks, batching), right) < 1e-12 for batching in ("vmap", "loop"))


def test_a_mistake_of_ones_own_keeps_its_error():
    wrong = {
        TypeError: of(lambda out, y: F.embedding_bag(out)),  # its error names the argument `sparse`
        NameError: of(lambda out, y: undefined),  # noqa: F821
        KeyError: lambda p, batch: p["v"].sum(),
    }
    for kind, loss in wrong.items():
        for batching in ("vmap", "loop"):
            with pytest.raises(kind):
                found(loss, theta(), classes(), batching)


def test_tolist_names_the_loop_which_is_right():
    def loss(p, batch):
        return F.cross_entropy(output(p, batch.x), torch.tensor(batch.y.tolist()))

    def metric(p, task):
        return torch.tensor(sum(output(p, task.query.x).argmax(1).tolist()))

    tasks, params = classes(), theta()
    algorithm = fmaml.maml(of(F.cross_entropy), inner_lr=LR, steps=STEPS)
    cure = r'your code, test_refused_in_losses.py:\d+, .*tolist.*: torch cannot vmap it; use batching="loop"$'
    with pytest.raises(ValueError, match=cure):
        found(loss, params, tasks, "vmap")
    with pytest.raises(ValueError, match=cure):
        fmaml.evaluate(algorithm, metric, params, tasks)
    assert relative(found(loss, params, tasks, "loop"), by_autograd(loss, params, tasks)) < 1e-12
    assert fmaml.evaluate(algorithm, metric, params, tasks, batching="loop").shape == (len(tasks.query.y), STEPS + 1)
    assert torch.arange(3).tolist() == [0, 1, 2]
