"""Masks, rates, inner optimizers and changing losses combine: each combination against its known answer, to 1e-12."""

from functools import partial

import pytest
import torch
from family import BY_NAME, LR, STEPS, annealed, bowls, gradient, hold, images, listed, made, network, same, times, walk
from problems import adapted, contraction, quadratic, relative, residual

import fmaml
from fmaml.algorithms.meta_sgd import MetaSgdTheta
from fmaml.inner import as_optimizer
from fmaml.optim.optimizers import rule_named
from fmaml.tree import map_leaves, take

LAWS = []
law = partial(listed, LAWS)


@pytest.mark.parametrize("answers", LAWS)
def test_law(answers):
    hold(answers)


@law
def multi_step_is_the_weighted_sum_of_the_losses():
    tasks, theta, _, _ = bowls()
    maml = fmaml.maml(quadratic, inner_lr=LR, steps=STEPS)
    algorithm = fmaml.multi_step(maml, quadratic, until=100)
    by_step = [
        times(contraction(tasks, LR, k), residual(adapted(theta, tasks, LR, k), tasks)).mean(0)
        for k in range(1, STEPS + 1)
    ]
    least = 0.03 / 4  # that of the authors' code
    for step, weights in (
        (0, [0.25] * 4),
        (60, [0.1, 0.1, 0.1, 0.7]),
        (99, [least, least, least, 1 - 3 * least]),
        (100, [0, 0, 0, 1.0]),
        (5000, [0, 0, 0, 1.0]),
    ):
        grads, metrics = fmaml.meta_grad(annealed(algorithm, step), {"p": theta}, tasks)
        yield grads, {"p": sum(w * g for w, g in zip(weights, by_step, strict=True))}
        yield metrics, fmaml.meta_loss(maml, {"p": theta}, tasks)[1]


@law
def first_order_first_then_second():
    _, loss_fn, params, tasks = network()
    both = [fmaml.maml(loss_fn, inner_lr=LR, steps=2, first_order=order) for order in (True, False)]
    algorithm = fmaml.first_then(*both, until=10)
    for step, now in ((0, both[0]), (9, both[0]), (10, both[1])):
        yield from same(annealed(algorithm, step), now, params, tasks)


@law
def annealings_combine():
    _, loss_fn, params, tasks = network()
    both = [fmaml.lslr(loss_fn, inner_lr=LR, steps=2, first_order=order) for order in (True, False)]
    one = fmaml.multi_step(fmaml.first_then(*both, until=10), loss_fn, until=20)
    other = fmaml.first_then(*[fmaml.multi_step(part, loss_fn, until=20) for part in both], until=10)
    for step in (0, 5, 10, 15, 25):
        yield from same(annealed(one, step), annealed(other, step), params, tasks)
    yield from same(annealed(one, 25), both[1], params, tasks)


@law
def a_meta_step_uses_the_loss_of_its_own_number():
    _, loss_fn, params, tasks = network()
    both = [fmaml.maml(loss_fn, inner_lr=LR, steps=2, first_order=order) for order in (True, False)]
    algorithm, sgd = fmaml.first_then(*both, until=1), fmaml.sgd(0.1)
    state = fmaml.init_state(algorithm, sgd, params)
    for now in both:
        expected, _ = fmaml.meta_step(now, sgd, state, tasks)
        state, _ = fmaml.meta_step(algorithm, sgd, state, tasks)
        yield state.theta, expected.theta


OPTIMIZERS = [
    (fmaml.momentum(0.1), partial(torch.optim.SGD, lr=0.1, momentum=0.9)),
    (fmaml.momentum(0.1, nesterov=True), partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)),
    (fmaml.adam(0.1), partial(torch.optim.Adam, lr=0.1)),
    (fmaml.adamw(0.1, weight_decay=0.3), partial(torch.optim.AdamW, lr=0.1, weight_decay=0.3)),
]


@law
def any_inner_optimizer_walks_as_torch_optim_does():
    _, loss_fn, params, tasks = network()
    support = take(tasks, 0).support
    for ours, theirs in OPTIMIZERS:
        found = walk(fmaml.maml(loss_fn, inner_lr=ours, steps=10))(params, support)
        phi = {name: p.clone().requires_grad_() for name, p in params.items()}
        optimizer = theirs(list(phi.values()))
        for k in range(11):
            yield found[k], map_leaves(lambda p: p.detach().clone(), phi)
            optimizer.zero_grad()
            loss_fn(phi, support).backward()
            optimizer.step()


@law
def every_walk_takes_any_inner_optimizer_by_name_and_those_without_learnt_rates_as_an_object():
    """By its name it is the optimizer of that name; where maps and rates begin as nothing, it is MAML."""
    model, loss_fn, params, tasks = images()
    support = take(tasks, 0).support
    for name in BY_NAME:
        for inner, own in (("momentum", fmaml.momentum(0.1)), ("adam", fmaml.adam(0.1))):
            algorithm = made(name, model, loss_fn, inner_lr=0.1, steps=2, inner=inner)
            plain = made(name, model, loss_fn, inner_lr=0.1, steps=2)
            theta = algorithm.init(params)
            if name == "streamed":  # its one chunk, read twice
                after = [walk(each)(theta, support, 2)[-1] for each in (algorithm, plain)]
            else:
                after = [each.adapt(theta, support) for each in (algorithm, plain)]
            assert relative(*after) > 1e-3
            if name not in {"meta_sgd", "lslr", "mamlpp", "proto_mamlpp"}:
                given = made(name, model, loss_fn, inner_lr=own, steps=2)
                yield fmaml.meta_grad(algorithm, theta, tasks), fmaml.meta_grad(given, theta, tasks)
            if name in {"meta_curvature", "meta_sgd", "lslr"}:
                maml = fmaml.maml(loss_fn, inner_lr=own, steps=2)
                yield gradient(algorithm, params, tasks), gradient(maml, params, tasks)
            if name in {"joint", "scratch"}:
                only = made(name, model, loss_fn, inner_lr=0.1, steps=2, inner=inner, only=("head.*",))
                maml = fmaml.maml(loss_fn, inner_lr=own, steps=2, only=("head.*",))
                yield only.adapt(params, support), maml.adapt(params, support)


@law
def masks_rates_and_inner_optimizers_combine():
    """A masked walk by momentum with a rate for each name is the walk of the sub-dict alone."""
    _, loss_fn, params, tasks = network()
    head = {name: p for name, p in params.items() if name.startswith("layer3")}
    body = {name: p for name, p in params.items() if name not in head}
    small = fmaml.maml(lambda part, batch: loss_fn({**body, **part}, batch), inner_lr=fmaml.momentum(LR), steps=STEPS)
    for method in (fmaml.meta_sgd, fmaml.lslr):
        algorithm = method(loss_fn, inner_lr=LR, steps=STEPS, only=("layer3.*",), inner="momentum")
        found, loss = gradient(algorithm, params, tasks)
        expected, also = gradient(small, head, tasks)
        yield ({name: found[name] for name in head}, loss), (expected, also)


@law
def masks_rates_inner_optimizers_and_annealings_combine():
    """Any of the walks, with a mask, an inner optimizer and another loss, each chosen by itself."""
    _, loss_fn, params, tasks = images()
    mask, adam = ("head.*", "norm*"), fmaml.chain(fmaml.clip_by_global_norm(1.0), fmaml.adam(0.1))
    settings = {"steps": 2, "only": mask}
    maml = fmaml.maml(loss_fn, inner_lr=adam, **settings)
    yield from same(fmaml.anil(loss_fn, inner_lr=adam, **settings), maml, params, tasks)
    yield from same(fmaml.boil(loss_fn, inner_lr=adam, **settings), maml, params, tasks)
    rates = {name: 0.1 + 0.05 * i for i, name in enumerate(params)}
    for inner in ("sgd", "momentum", "adam", "rmsprop"):
        sgd, each = fmaml.meta_sgd(loss_fn, inner_lr=0.1, inner=inner, **settings), tuple(rule_named(inner))
        each_rate = {name: torch.full_like(p, rates[name]) for name, p in params.items()}
        learnt: MetaSgdTheta = {"params": params, "rates": each_rate}
        own = fmaml.maml(loss_fn, inner_lr=fmaml.chain(*each, as_optimizer(rates)), **settings)
        weighted = annealed(fmaml.multi_step(sgd, loss_fn, until=8), 4)
        expected = annealed(fmaml.multi_step(own, loss_fn, until=8), 4)
        found = fmaml.meta_grad(weighted, learnt, tasks)
        yield (found[0]["params"], found[1]), fmaml.meta_grad(expected, params, tasks)
