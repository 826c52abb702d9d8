"""Each algorithm against what it must be: one table of (algorithm, problem, known answer), in float64 to 1e-12."""

import inspect
import math
import warnings
from functools import partial
from importlib import import_module

import pytest
import torch
from problems import (
    F64,
    adapted,
    contraction,
    doubled,
    image_tasks,
    quadratic,
    quadratic_tasks,
    regression_tasks,
    relative,
    residual,
)
from torch.func import grad, vmap

import fmaml
from fmaml import Batch, Task
from fmaml.algorithms.imaml import conjugate_gradients
from fmaml.algorithms.reptile import minibatches
from fmaml.config.registry import TABLE
from fmaml.head import cosines
from fmaml.tree import leaves, map_leaves, take

LR, STEPS, DIM = 0.3, 4, 5
LAWS = []


def called(name):
    """The function of an algorithm in the table: one that is added there is tested here."""
    module, _, function = TABLE["algorithm"][name].partition(":")
    return getattr(import_module(module), function)


def taking(setting):
    return [name for name in TABLE["algorithm"] if setting in inspect.signature(called(name)).parameters]


BY_NAME, UNROLLED = taking("inner"), taking("remat")
assert len(BY_NAME) >= 14  # all that take inner steps, but for those whose learnt rule is the optimizer
assert len(UNROLLED) >= 11  # all that differentiate through their inner steps


def law(fn):
    LAWS.append(pytest.param(fn, id=fn.__name__))
    return fn


@pytest.mark.parametrize("answers", LAWS)
def test_law(answers):
    """Pairs (found, expected), trees of the same shape."""
    pairs = list(answers())
    assert pairs
    for found, expected in pairs:
        assert relative(found, expected) < 1e-12


# The problems


def bowls():
    """Quadratic tasks and a theta: (tasks, theta, phi_K, A (theta - c))."""
    tasks, theta = quadratic_tasks(7, DIM), torch.randn(DIM, dtype=F64)
    slope = times(tasks.support.x, theta - tasks.support.y)
    return tasks, theta, adapted(theta, tasks, LR, STEPS), slope


def times(matrix, vector):
    return (matrix @ vector[..., None])[..., 0]


def network(**options):
    """A small smooth network with a head called layer3, its loss, its parameters and three regression tasks."""
    model = fmaml.mlp(inputs=(3,), outputs=2, hidden=[8, 8], activation="tanh", **options)
    params = doubled(model.init(torch.Generator().manual_seed(0)))
    return model, fmaml.supervised(model.apply, fmaml.mse), params, regression_tasks(3, 3, 2)


def images():
    """A small conv4, its loss, its parameters and three 3-way tasks."""
    model = fmaml.conv4(inputs=(1, 16, 16), outputs=3, width=8)
    params = doubled(model.init(torch.Generator().manual_seed(0)))
    return model, fmaml.supervised(model.apply, fmaml.cross_entropy), params, image_tasks(3, (1, 16, 16))


def alike():
    """The same with images that can be told apart: the queries of a class are its support image, a little changed."""
    model, loss_fn, params, tasks = images()
    first = tasks.support.x.repeat_interleave(2, 1)
    return model, loss_fn, params, tasks._replace(query=Batch(first + 0.1 * tasks.query.x, tasks.query.y))


def gradient(algorithm, params, tasks):
    """The meta-gradient at the algorithm's first theta, as far as it is that of the parameters."""
    grads, metrics = fmaml.meta_grad(algorithm, algorithm.init(params), tasks)
    return grads.get("params", grads), metrics["query_loss"]


def same(one, other, params, tasks):
    """Both have one meta-gradient with respect to the parameters, and one query loss."""
    yield gradient(one, params, tasks), gradient(other, params, tasks)


# The laws


@law
def fomaml_is_the_query_gradient_at_phi():
    tasks, theta, phi, _ = bowls()
    algorithm = fmaml.maml(quadratic, inner_lr=LR, steps=STEPS, first_order=True)
    yield gradient(algorithm, {"p": theta}, tasks)[0], {"p": residual(phi, tasks).mean(0)}


def test_fomaml_tends_to_maml_with_slope_one():
    """|FOMAML - MAML| / |MAML| is proportional to alpha, as alpha goes to 0, for any number of steps."""
    _, loss_fn, params, tasks = network()

    def gap(lr, steps):
        both = (fmaml.maml(loss_fn, inner_lr=lr, steps=steps, first_order=order) for order in (True, False))
        return relative(*(gradient(algorithm, params, tasks)[0] for algorithm in both))

    for steps in (1, STEPS):
        assert math.log10(gap(1e-3, steps) / gap(1e-4, steps)) == pytest.approx(1.0, abs=0.02)


@law
def reptile_pulls_towards_phi():
    tasks, theta, phi, slope = bowls()
    for steps, expected in ((STEPS, (theta - phi).mean(0)), (1, LR * slope.mean(0))):
        algorithm = fmaml.reptile(quadratic, inner_lr=LR, steps=steps)
        yield gradient(algorithm, {"p": theta}, tasks)[0], {"p": expected}


@law
def reptile_with_minibatches_takes_them_one_by_one():
    _, loss_fn, params, tasks = network()
    task = take(tasks, 0)
    phi, parts = params, minibatches(task.support, 2)
    for _ in range(STEPS):
        phi = fmaml.inner_update(loss_fn, phi, next(parts), LR)
    yield fmaml.reptile(loss_fn, inner_lr=LR, steps=STEPS, minibatch=2).adapt(params, task.support), phi


@law
def anil_with_everything_for_a_head_is_maml():
    _, loss_fn, params, tasks = network()
    settings = {"inner_lr": LR, "steps": STEPS}
    yield from same(fmaml.anil(loss_fn, **settings, only=("*",)), fmaml.maml(loss_fn, **settings), params, tasks)


@law
def anil_is_maml_with_a_body_rate_of_0_and_boil_with_a_head_rate_of_0():
    _, loss_fn, params, tasks = network()
    for first_order in (False, True):
        for method, only, moved in (
            (fmaml.anil, ("layer3.*",), "layer3"),
            (fmaml.boil, ("layer1.*", "layer2.*"), "layer1 layer2"),
            (fmaml.maml, ("*.bias",), "bias"),
        ):
            rates = {n: LR * any(part in moved.split() for part in n.split(".")) for n in params}
            plain = fmaml.maml(loss_fn, inner_lr=rates, steps=STEPS, first_order=first_order)
            masked = method(loss_fn, inner_lr=LR, steps=STEPS, first_order=first_order, only=only)
            yield from same(masked, plain, params, tasks)


@law
def anil_on_conv4_adapts_head_and_boil_the_rest_without_being_told_the_names():
    _, loss_fn, params, tasks = images()
    support = take(tasks, 0).support
    for method, moves in ((fmaml.anil, True), (fmaml.boil, False)):
        phi = method(loss_fn, inner_lr=LR, steps=1).adapt(params, support)
        moved = [name for name in params if not torch.equal(phi[name], params[name])]
        yield (
            torch.tensor([1.0 + n.startswith("head") for n in moved]),
            torch.tensor([2.0] * 2 if moves else [1.0] * 12),
        )


@law
def meta_sgd_with_constant_rates_is_maml():
    _, loss_fn, params, tasks = network()
    settings = {"inner_lr": LR, "steps": STEPS}
    for more in ({}, {"first_order": True}, {"only": ("layer3.*",)}):
        one, other = (method(loss_fn, **settings, **more) for method in (fmaml.meta_sgd, fmaml.maml))
        yield from same(one, other, params, tasks)


@law
def meta_sgd_rate_gradient():
    """One step: phi = theta - alpha o A (theta - c), so d L / d alpha = -A (theta - c) o B (phi - q)."""
    tasks, theta, _, slope = bowls()
    algorithm = fmaml.meta_sgd(quadratic, inner_lr=LR, steps=1)
    rates = torch.rand(DIM, dtype=F64)
    grads, _ = fmaml.meta_grad(algorithm, {"params": {"p": theta}, "rates": {"p": rates}}, tasks)
    back = residual(theta - rates * slope, tasks)
    yield grads["rates"], {"p": -(slope * back).mean(0)}
    yield grads["params"], {"p": (back - times(tasks.support.x, rates * back)).mean(0)}


@law
def lslr_with_constant_rates_is_maml_and_its_rate_gradient():
    """d L / d alpha_k = -(B (phi - q))' (I - alpha A)^(K - 1) A (theta - c), the same for every step k."""
    tasks, theta, phi, slope = bowls()
    algorithm = fmaml.lslr(quadratic, inner_lr=LR, steps=STEPS)
    yield from same(algorithm, fmaml.maml(quadratic, inner_lr=LR, steps=STEPS), {"p": theta}, tasks)
    grads, _ = fmaml.meta_grad(algorithm, algorithm.init({"p": theta}), tasks)
    each = -(residual(phi, tasks) * times(contraction(tasks, LR, STEPS - 1), slope)).sum(-1).mean(0)
    yield grads["rates"], {"p": each.expand(STEPS)}


@law
def lslr_has_its_own_rate_for_each_step_and_the_last_one_ever_after():
    tasks, theta, _, _ = bowls()
    algorithm = fmaml.lslr(quadratic, inner_lr=LR, steps=2)
    phi = vmap(lambda support: algorithm.trajectory(learnt, support, 4))
    learnt = {"params": {"p": theta}, "rates": {"p": torch.tensor([0.1, 0.5], dtype=F64)}}
    expected = [theta.expand(7, DIM)]
    for rate in (0.1, 0.5, 0.5, 0.5):
        expected.append(expected[-1] - rate * times(tasks.support.x, expected[-1] - tasks.support.y))
    yield phi(tasks.support), [{"p": p} for p in expected]


@law
def multi_step_is_the_weighted_sum_of_the_losses():
    tasks, theta, _, _ = bowls()
    maml = fmaml.maml(quadratic, inner_lr=LR, steps=STEPS)
    algorithm = fmaml.multi_step(maml, quadratic, until=100)
    by_step = [
        times(contraction(tasks, LR, k), residual(adapted(theta, tasks, LR, k), tasks)).mean(0)
        for k in range(1, STEPS + 1)
    ]
    for step, weights in ((0, [0.25] * 4), (60, [0.1, 0.1, 0.1, 0.7]), (100, [0, 0, 0, 1.0]), (5000, [0, 0, 0, 1.0])):
        grads, metrics = fmaml.meta_grad(algorithm.at(step), {"p": theta}, tasks)
        yield grads, {"p": sum(w * g for w, g in zip(weights, by_step, strict=True))}
        yield metrics, fmaml.meta_loss(maml, {"p": theta}, tasks)[1]


@law
def first_order_first_then_second():
    _, loss_fn, params, tasks = network()
    both = [fmaml.maml(loss_fn, inner_lr=LR, steps=2, first_order=order) for order in (True, False)]
    algorithm = fmaml.first_then(*both, until=10)
    for step, now in ((0, both[0]), (9, both[0]), (10, both[1])):
        yield from same(algorithm.at(step), now, params, tasks)


@law
def annealings_combine():
    _, loss_fn, params, tasks = network()
    both = [fmaml.lslr(loss_fn, inner_lr=LR, steps=2, first_order=order) for order in (True, False)]
    one = fmaml.multi_step(fmaml.first_then(*both, until=10), loss_fn, until=20)
    other = fmaml.first_then(*[fmaml.multi_step(part, loss_fn, until=20) for part in both], until=10)
    for step in (0, 5, 10, 15, 25):
        yield from same(one.at(step), other.at(step), params, tasks)
    yield from same(one.at(25), both[1], params, tasks)


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


@law
def mamlpp_with_every_part_off_is_maml():
    _, loss_fn, params, tasks = images()
    settings = {"inner_lr": LR, "steps": 2}
    off = fmaml.mamlpp(loss_fn, **settings, learn_rates=False, norms_by_step=False)
    yield from same(off, fmaml.maml(loss_fn, **settings), params, tasks)


@law
def each_part_of_mamlpp_is_what_it_is_alone():
    _, loss_fn, params, tasks = images()
    settings, off = {"inner_lr": LR, "steps": 2}, {"learn_rates": False, "norms_by_step": False}
    maml = partial(fmaml.maml, loss_fn, **settings)
    others = tuple(name for name in params if "norm" not in name)
    for part, step, alone in (
        ({"learn_rates": True}, 0, fmaml.lslr(loss_fn, **settings)),
        ({"multi_step_until": 8}, 2, fmaml.multi_step(maml(), loss_fn, until=8).at(2)),
        ({"first_order_until": 8}, 7, maml(first_order=True)),
        ({"first_order_until": 8}, 8, maml()),
        ({"inner": "momentum"}, 0, maml(inner_lr=fmaml.momentum(LR))),
    ):
        algorithm = fmaml.mamlpp(loss_fn, **settings, **{**off, **part})
        yield from same(fmaml.outer.at_step(algorithm, step), alone, params, tasks)
    # Norms that are the same for each step are norms that are not adapted; the gradient is split among the steps.
    algorithm = fmaml.mamlpp(loss_fn, **settings, **{**off, "norms_by_step": True})
    grads, _ = fmaml.meta_grad(algorithm, algorithm.init(params), tasks)
    whole, _ = fmaml.meta_grad(maml(only=others), params, tasks)
    yield {**grads["params"], **{n: grads["params"][n] + g.sum(0) for n, g in grads["norms"].items()}}, whole


@law
def mamlpp_norms_of_step_k_are_thetas_own():
    _, loss_fn, params, tasks = images()
    algorithm = fmaml.mamlpp(loss_fn, inner_lr=LR, steps=2)
    theta = map_leaves(lambda p: p + 0.1 * torch.rand_like(p), algorithm.init(params))
    phis = algorithm.trajectory(theta, take(tasks, 0).support, 3)
    for k, at in ((0, None), (1, 0), (2, 1), (3, 1)):
        own = {n: theta["params"][n] if at is None else v[at] for n, v in theta["norms"].items()}
        yield {n: phis[k][n] for n in own}, own


@law
def imaml_solves_its_linear_system_exactly():
    """v = (I + A / lambda)^-1 B (phi - q), and phi the minimum of the proximal problem."""
    tasks, theta, _, _ = bowls()
    a, c, eye, strength = tasks.support.x, tasks.support.y, torch.eye(DIM, dtype=F64), 2.0
    algorithm = fmaml.imaml(quadratic, inner_lr=0.4, steps=200, regularization=strength, cg_steps=2 * DIM)
    phi = torch.linalg.solve(a + strength * eye, times(a, c) + strength * theta)
    expected = torch.linalg.solve(eye + a / strength, residual(phi, tasks)).mean(0)
    yield vmap(algorithm.adapt, (None, 0))({"p": theta}, tasks.support), {"p": phi}
    yield gradient(algorithm, {"p": theta}, tasks)[0], {"p": expected}


@law
def imaml_goes_no_further_than_the_curvature_is_positive():
    """What conjugate gradients have found before the first direction without curvature; 0 if there is none."""
    for diagonal, b, expected in (
        ([1.0, -2.5], [0.65, 0.7], 1.0),  # I + H / 2 has the eigenvalues 1.5 and -0.25
        ([-3.0, -3.0], [0.65, 1.54], 0.0),
        ([1.0, 3.0], [0.0, 0.0], 0.0),
    ):
        matrix, b = 1 + torch.tensor(diagonal, dtype=F64) / 2, torch.tensor(b, dtype=F64)
        first = b * (b @ b) / (b @ (matrix * b)) if expected else torch.zeros_like(b)
        for steps in (1, 2, 10):
            found = conjugate_gradients(lambda v, m=matrix: {"p": m * v["p"]}, {"p": b}, steps)
            yield 1 + found["p"], 1 + first


@law
def cavia_is_maml_on_the_context():
    """Of the network that sees the context beside its inputs (a linear layer), or modulates its channels (a norm)."""
    for problem, layer in ((network, "layer1"), (images, "norm3")):
        _, loss_fn, params, tasks = problem()
        algorithm = fmaml.cavia(loss_fn, inner_lr=LR, steps=3, context=4, layer=layer)
        theta = map_leaves(lambda p: p + 0.1 * torch.rand_like(p), algorithm.init(params))
        assert torch.linalg.matrix_rank(algorithm.init(params)["context.shift"]) == 4

        def on_the_context(theta, layer=layer, params=params, loss_fn=loss_fn, tasks=tasks):
            def modulated(part, batch):
                scale = 1 + theta["context.scale"] @ part["c"] if layer == "norm3" else 1
                weight = theta[f"{layer}.weight"] * scale
                bias = theta[f"{layer}.bias"] * scale + theta["context.shift"] @ part["c"]
                own = {name: theta[name] for name in params}
                return loss_fn({**own, f"{layer}.weight": weight, f"{layer}.bias": bias}, batch)

            maml = fmaml.maml(modulated, inner_lr=LR, steps=3)
            return fmaml.meta_loss(maml, {"c": torch.zeros(4, dtype=F64)}, tasks, batching="loop")[0]

        grads, metrics = fmaml.meta_grad(algorithm, theta, tasks)
        yield metrics["query_loss"], on_the_context(theta)
        yield grads, grad(on_the_context)(theta)


@law
def protonet_scores_are_distances_to_the_means():
    model, loss_fn, params, tasks = images()
    for task in (take(tasks, i) for i in range(3)):
        phi = fmaml.protonet(loss_fn, model.apply).adapt(params, task.support)
        plain = {**params, "head.weight": torch.eye(8, dtype=F64), "head.bias": torch.zeros(8, dtype=F64)}
        support, query = (model.apply(plain, batch.x) for batch in task)
        means = torch.stack([support[task.support.y == k].mean(0) for k in range(3)])
        distances = torch.cdist(query, means, compute_mode="donot_use_mm_for_euclid_dist").square()
        yield model.apply(phi, task.query.x).softmax(-1), (-distances).softmax(-1)


@law
def proto_maml_without_steps_is_protonet():
    model, loss_fn, params, tasks = images()
    one = fmaml.proto_maml(loss_fn, model.apply, inner_lr=LR, steps=0)
    yield from same(one, fmaml.protonet(loss_fn, model.apply), params, tasks)


@law
def proto_maml_is_maml_from_the_prototypes():
    model, loss_fn, params, tasks = images()
    algorithm = fmaml.proto_maml(loss_fn, model.apply, inner_lr=LR, steps=3)
    start = fmaml.protonet(loss_fn, model.apply).adapt(params, take(tasks, 0).support)
    phi = fmaml.maml(loss_fn, inner_lr=LR, steps=3).adapt(start, take(tasks, 0).support)
    yield algorithm.adapt(params, take(tasks, 0).support), phi


@law
def proto_mamlpp_with_constant_rates_is_proto_maml_and_its_multi_step_loss_the_weighted_sum():
    model, loss_fn, params, tasks = images()
    settings = {"inner_lr": LR, "steps": 3}
    for more in ({}, {"first_order": True}, {"only": ("conv*", "norm*")}):
        plain = fmaml.proto_maml(loss_fn, model.apply, **settings, **more)
        yield from same(fmaml.proto_mamlpp(loss_fn, model.apply, **settings, **more), plain, params, tasks)
    plain = fmaml.proto_maml(loss_fn, model.apply, **settings)
    algorithm = fmaml.proto_mamlpp(loss_fn, model.apply, **settings, multi_step_until=8)
    yield from same(algorithm.at(2), fmaml.multi_step(plain, loss_fn, until=8).at(2), params, tasks)
    yield from same(algorithm.at(8), plain, params, tasks)


@law
def the_scale_of_prototypes_is_that_of_the_distances():
    model, loss_fn, params, tasks = images()
    support, query = take(tasks, 0)
    once, twice = (fmaml.proto_mamlpp(loss_fn, model.apply, inner_lr=LR, steps=1, scale=scale) for scale in (1.0, 2.0))
    phi, phi2 = (algorithm.trajectory(algorithm.init(params), support)[0] for algorithm in (once, twice))
    yield model.apply(phi2, query.x), 2 * model.apply(phi, query.x)
    yield phi, fmaml.protonet(loss_fn, model.apply).adapt(params, support)


@law
def r2d2_is_the_normal_equations():
    for problem, head, size in ((images, "head", 8), (network, "layer3", 8)):
        model, loss_fn, params, tasks = problem()
        task = take(tasks, 0)
        algorithm = fmaml.r2d2(loss_fn, model.apply, ridge=0.3, scale=2.0, head=head)
        plain = {**params, f"{head}.weight": torch.eye(size, dtype=F64), f"{head}.bias": torch.zeros(size, dtype=F64)}
        x, y = model.apply(plain, task.support.x), task.support.y
        y = y if y.is_floating_point() else torch.nn.functional.one_hot(y, 3).double()
        w = torch.linalg.solve(x.T @ x + 0.3 * torch.eye(size, dtype=F64), x.T @ y)
        times_scale = 1 if problem is network else 2
        yield algorithm.adapt(algorithm.init(params), task.support)[f"{head}.weight"], times_scale * w.T


@law
def learnt_maps_that_are_the_identity_are_maml():
    _, loss_fn, params, tasks = images()
    settings = {"inner_lr": LR, "steps": 2}
    for more in ({}, {"first_order": True}, {"only": ("head.*", "conv2.*")}):
        maml = fmaml.maml(loss_fn, **settings, **more)
        for method in (fmaml.meta_curvature, fmaml.alfa):
            yield from same(method(loss_fn, **settings, **more), maml, params, tasks)
    warp = fmaml.warpgrad(loss_fn, **settings)
    for i in range(3):
        support = take(tasks, i).support
        yield warp.trajectory(warp.init(params), support), maml_phis(loss_fn, params, support)


def maml_phis(loss_fn, params, support):
    return fmaml.trajectory(loss_fn, params, support, LR, steps=2)


@law
def learnt_maps_on_quadratics():
    tasks, theta, _, slope = bowls()
    matrix = torch.randn(DIM, DIM, dtype=F64)
    curved = fmaml.meta_curvature(quadratic, inner_lr=LR, steps=1)
    warped = fmaml.warpgrad(quadratic, inner_lr=LR, steps=1)
    for algorithm, maps, image in (
        (curved, {"maps": {"p": [matrix]}}, times(matrix, slope)),
        (warped, {"warps": {"p": matrix}}, times(matrix @ matrix.T, slope)),
    ):
        learnt = {"params": {"p": theta}, **maps}
        phi = theta - LR * image
        yield vmap(algorithm.adapt, (None, 0))(learnt, tasks.support), {"p": phi}
        back = residual(phi, tasks)  # d L / d M = -alpha back slope', and for M = W W' twice the symmetric part times W
        outer = -LR * (back[:, :, None] * slope[:, None, :]).mean(0)
        expected = outer if algorithm is curved else (outer + outer.T) @ matrix
        grads, _ = fmaml.meta_grad(algorithm, learnt, tasks)
        yield leaves({**grads, "params": ()}), [expected]
    grads, _ = fmaml.meta_grad(warped, {"params": {"p": theta}, "warps": {"p": matrix}}, tasks)
    yield grads["params"], {"p": (theta - phi).mean(0)}


@law
def meta_curvature_of_a_filter_is_three_matrix_products():
    _, loss_fn, params, tasks = images()
    algorithm, support = fmaml.meta_curvature(loss_fn, inner_lr=LR, steps=1), take(tasks, 0).support
    theta = algorithm.init(params)
    maps = theta["maps"]["conv2.weight"] = [torch.randn(n, n, dtype=F64) for n in (8, 8, 9)]
    g = grad(loss_fn)(params, support)["conv2.weight"]
    expected = torch.einsum("oa,ib,fc,abc->oif", *maps, g.flatten(2)).view_as(g)
    yield algorithm.adapt(theta, support)["conv2.weight"], params["conv2.weight"] - LR * expected


@law
def alfa_makes_rates_and_decays_from_the_means():
    tasks, theta, _, slope = bowls()
    algorithm = fmaml.alfa(quadratic, inner_lr=LR, steps=1)
    learnt = algorithm.init({"p": theta})
    hidden, hidden_bias = learnt["hidden"][0], torch.tensor([0.3, -0.1], dtype=F64)
    rates, decays = torch.tensor([[0.2, 0.7]], dtype=F64), torch.tensor([[-0.3, 0.1]], dtype=F64)
    learnt |= {"hidden": (hidden, hidden_bias), "rates": (rates, hidden_bias[:1]), "decays": (decays, hidden_bias[1:])}
    for i in range(7):
        h = (hidden @ torch.stack([slope[i].mean(), theta.mean()]) + hidden_bias).clamp(min=0)
        a, b = LR * (1 + rates[0] @ h + 0.3), 1 + decays[0] @ h - 0.1
        yield algorithm.adapt(learnt, take(tasks, i).support), {"p": b * theta - a * slope[i]}


@law
def scratch_fits_as_maml_does_from_where_it_began():
    _, loss_fn, params, tasks = network()
    settings = {"inner_lr": LR, "steps": 2}
    one, other = fmaml.scratch(loss_fn, **settings), fmaml.maml(loss_fn, **settings)
    yield one.adapt(params, take(tasks, 0).support), other.adapt(params, take(tasks, 0).support)
    state = fmaml.init_state(one, fmaml.adam(1e-2), params)
    after, metrics = fmaml.meta_step(one, fmaml.adam(1e-2), state, tasks)
    yield after.theta, params
    yield metrics, fmaml.meta_loss(other, params, tasks)[1]


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
        found = fmaml.maml(loss_fn, inner_lr=ours, steps=10).trajectory(params, support)
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
            assert relative(algorithm.adapt(theta, support), plain.adapt(theta, support)) > 1e-3
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
        sgd, each = fmaml.meta_sgd(loss_fn, inner_lr=0.1, inner=inner, **settings), tuple(fmaml.optim.rule_named(inner))
        learnt = {"params": params, "rates": map_leaves(lambda p, r: torch.full_like(p, r), params, rates)}
        own = fmaml.maml(loss_fn, inner_lr=fmaml.chain(*each, fmaml.inner.as_rule(rates)), **settings)
        weighted, expected = (fmaml.multi_step(algorithm, loss_fn, until=8).at(4) for algorithm in (sgd, own))
        found = fmaml.meta_grad(weighted, learnt, tasks)
        yield (found[0]["params"], found[1]), fmaml.meta_grad(expected, params, tasks)


# All of them


def made(name, model, loss_fn, **settings):
    """The algorithm with those of the settings that it takes."""
    function = called(name)
    takes = inspect.signature(function).parameters
    given = {"apply": model.apply, **settings}
    return function(loss_fn, **{key: value for key, value in given.items() if key in takes})


def family(model, loss_fn):
    """Every algorithm of the table, by name, on conv4."""
    settings = {"inner_lr": 0.1, "steps": 2}
    return {name: made(name, model, loss_fn, **settings) for name in TABLE["algorithm"]} | {
        "all of MAML++": fmaml.mamlpp(loss_fn, **settings, multi_step_until=9, first_order_until=5, inner="adam").at(6),
        # not rmsprop: it divides a gradient that is zero but for rounding by itself, and so enlarges rounding
        "reptile on minibatches": fmaml.reptile(loss_fn, **settings, minibatch=2, inner="momentum"),
    }


FAMILY = [*TABLE["algorithm"], "all of MAML++", "reptile on minibatches"]


@pytest.mark.parametrize("name", UNROLLED)
@pytest.mark.parametrize("options", [{}, {"batching": "loop"}, {"chunk_size": 2}], ids=["vmap", "loop", "chunks"])
def test_running_the_inner_steps_again_gives_the_same_gradient_of_all_of_theta(name, options):
    model, loss_fn, params, tasks = images()
    kept, again = (made(name, model, loss_fn, inner_lr=0.1, steps=2, remat=remat) for remat in (False, True))
    theta = map_leaves(lambda p: p + 0.01 * torch.rand_like(p), kept.init(params))
    kept, again = (fmaml.outer.at_step(algorithm, 0) for algorithm in (kept, again))
    assert relative(fmaml.meta_grad(again, theta, tasks, **options), fmaml.meta_grad(kept, theta, tasks)) < 1e-12


def compiled_gap(name, backend):
    """How far the compiled meta-gradient of an algorithm is from its own, on a tiny network."""
    model = fmaml.mlp(inputs=(3,), outputs=2, hidden=[4], activation="tanh")
    params, tasks = doubled(model.init(torch.Generator().manual_seed(0))), image_tasks(2, (3,), ways=2)
    only = {"anil": ("layer2.*",), "boil": ("layer1.*",)}.get(name, ("*",))
    part = {"head": "layer2", "layer": "layer1", "norms": ("layer1.*",), "multi_step_until": 9}
    loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    algorithm = fmaml.outer.at_step(made(name, model, loss_fn, inner_lr=0.1, steps=2, only=only, **part), 3)
    theta = algorithm.init(params)
    torch.compiler.reset()
    compiled = torch.compile(partial(fmaml.meta_grad, algorithm), fullgraph=True, backend=backend)
    grads, metrics = compiled(theta, tasks)
    expected, also = fmaml.meta_grad(algorithm, theta, tasks)
    assert relative(metrics, also) < 1e-10
    return max(float((a - b).abs().max()) for a, b in zip(leaves(grads), leaves(expected), strict=True))


@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
@pytest.mark.parametrize("name", TABLE["algorithm"])
def test_traces_into_one_graph(name):
    assert compiled_gap(name, "eager") < 1e-10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TABLE["algorithm"])
def test_compiles_to_the_same_meta_gradient(name):
    assert compiled_gap(name, "inductor") < 1e-10


@pytest.mark.parametrize("name", FAMILY)
def test_vmap_loop_and_chunks_agree_and_the_query_loss_is_the_true_one(name):
    model, loss_fn, params, tasks = images()
    algorithm = family(model, loss_fn)[name]
    theta = map_leaves(lambda p: p + 0.01 * torch.rand_like(p), algorithm.init(params))
    before = map_leaves(torch.clone, theta)
    expected, metrics = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")
    assert all(g.isfinite().all() for g in leaves(expected))
    assert (name == "scratch") == all((g == 0).all() for g in leaves(expected))
    for options in ({}, {"chunk_size": 2}, {"chunk_size": 1}):
        grads, also = fmaml.meta_grad(algorithm, theta, tasks, **options)
        assert relative(also, metrics) < 1e-12
        if name != "scratch":
            assert relative(grads, expected) < 1e-12
    if name != "joint":  # its query loss is that of the one network
        phis = [algorithm.adapt(theta, take(tasks, i).support) for i in range(3)]
        losses = [loss_fn(phi, take(tasks, i).query) for i, phi in enumerate(phis)]
        assert relative(metrics["query_loss"], torch.stack(losses).mean()) < 1e-12
    assert all(torch.equal(a, b) for a, b in zip(leaves(before), leaves(theta), strict=True))


@pytest.mark.parametrize("norms_by_step", [True, False])
def test_the_mask_of_mamlpp_holds_its_norms_too(norms_by_step):
    _, loss_fn, params, tasks = images()
    algorithm = fmaml.mamlpp(loss_fn, inner_lr=LR, steps=2, norms_by_step=norms_by_step, only=("head.*",))
    theta = map_leaves(lambda p: p + 0.01 * torch.rand_like(p), algorithm.init(params))
    phi = algorithm.adapt(theta, take(tasks, 0).support)
    assert {name for name in phi if not torch.equal(phi[name], theta["params"][name])} == {"head.weight", "head.bias"}


def test_norms_by_step_are_those_inside_blocks_too():
    model = fmaml.transformer(inputs=(6,), outputs=5, width=8, heads=2, layers=1)
    params = model.init(torch.Generator().manual_seed(0))
    norms = fmaml.mamlpp(fmaml.supervised(model.apply, fmaml.bits), inner_lr=LR, steps=2).init(params)["norms"]
    assert set(norms) == {n for n in params if n.split(".")[-2].startswith("norm")}
    assert "block1.norm1.weight" in norms


def test_mamlpp_says_which_patterns_leave_nothing():
    _, loss_fn, params, tasks = images()
    algorithm = fmaml.mamlpp(loss_fn, inner_lr=LR, steps=2, only=("norm*",))
    with pytest.raises(ValueError, match="norms_by_step takes them all"):
        algorithm.adapt(algorithm.init(params), take(tasks, 0).support)
    with pytest.raises(ValueError, match=r"^norms = \['film\*'\]: no parameter is named like"):
        fmaml.mamlpp(loss_fn, inner_lr=LR, steps=2, norms=("film*",)).init(params)


def test_what_never_changes_needs_no_step():
    model, loss_fn, _, _ = images()
    for name in ("mamlpp", "proto_mamlpp"):
        assert made(name, model, loss_fn, inner_lr=LR, steps=2).at is None


@pytest.mark.parametrize(("rows", "columns"), [(8, 4), (10, 10), (4, 9), (32, 64)])
def test_learnt_maps_begin_at_full_rank(rows, columns):
    assert torch.linalg.cond(cosines(rows, columns, torch.zeros((), dtype=F64))) < 1.5


@pytest.mark.parametrize("name", FAMILY)
def test_learns_and_is_evaluated_by_inner_step(name):
    model, loss_fn, params, tasks = alike()
    algorithm, optimizer = family(model, loss_fn)[name], fmaml.adam(1e-2)
    state = fmaml.init_state(algorithm, optimizer, params)
    losses = []
    for _ in range(12):
        state, metrics = fmaml.meta_step(algorithm, optimizer, state, tasks)
        losses.append(float(metrics["query_loss"]))
    best = min(losses[-4:])
    assert best == pytest.approx(losses[0]) if name == "scratch" else best < 0.95 * losses[0]
    rows = fmaml.evaluate(algorithm, fmaml.inductive(model.apply, fmaml.accuracy), state.theta, tasks, steps=4)
    assert rows.shape == (3, 5 if algorithm.trajectory else 1)


CLASSES_ONLY = {"protonet", "proto_maml", "proto_mamlpp"}
CONV_ONLY = {"boil": {"only": ("layer1.*",)}, "anil": {"only": ("layer3.*",)}, "mamlpp": {"norms_by_step": False}}


@pytest.mark.parametrize("name", sorted(set(TABLE["algorithm"]) - CLASSES_ONLY))
def test_regression(name):
    model, loss_fn, params, tasks = network()
    settings = {"inner_lr": 0.05, "steps": 3, "head": "layer3", "layer": "layer1"} | CONV_ONLY.get(name, {})
    algorithm = made(name, model, loss_fn, **settings)
    theta = algorithm.init(params)
    phi = algorithm.adapt(theta, take(tasks, 0).support)
    assert loss_fn(phi, take(tasks, 0).support) < loss_fn(params, take(tasks, 0).support)
    grads, _ = fmaml.meta_grad(algorithm, theta, tasks)
    assert all(g.isfinite().all() for g in leaves(grads))


@pytest.mark.parametrize("name", sorted(TABLE["algorithm"]))
def test_languages(name):
    """Passages of symbols: every algorithm that adapts by gradients learns from them; the others say why not."""
    model = fmaml.transformer(inputs=(6,), outputs=5, width=8, heads=2, layers=1)
    loss_fn = fmaml.supervised(model.apply, fmaml.bits)
    params, text = doubled(model.init(torch.Generator().manual_seed(0))), torch.randint(5, (2, 3, 7))
    tasks = Task(*[Batch(text[..., :-1], text[..., 1:])] * 2)
    only = {"boil": ("block*",), "anil": ("head.*",)}.get(name, ("*",))
    settings = {"inner_lr": 0.05, "steps": 2, "only": only, "layer": "norm", "norms_by_step": False}
    algorithm = made(name, model, loss_fn, **settings)
    if name in CLASSES_ONLY | {"r2d2"}:
        with pytest.raises(ValueError, match=f"{name}: it compares classes"):
            fmaml.meta_grad(algorithm, algorithm.init(params), tasks)
        return
    theta, support = algorithm.init(params), take(tasks, 0).support
    assert loss_fn(algorithm.adapt(theta, support), support) < loss_fn(params, support)
    grads, _ = fmaml.meta_grad(algorithm, theta, tasks)
    assert all(g.isfinite().all() for g in leaves(grads))


# Where an algorithm makes no sense, and what goes wrong elsewhere


@pytest.mark.parametrize("name", sorted(CLASSES_ONLY))
def test_no_classes_no_prototypes(name):
    model, loss_fn, params, tasks = network()
    algorithm = made(name, model, loss_fn, inner_lr=LR, steps=1, head="layer3")
    with pytest.raises(ValueError, match=f"{name}: it compares classes"):
        fmaml.meta_grad(algorithm, algorithm.init(params), tasks)


@pytest.mark.parametrize("name", sorted(CLASSES_ONLY | {"r2d2"}))
def test_a_head_that_is_not_there_is_named_with_what_is(name):
    model, loss_fn, params, _ = network()
    with pytest.raises(ValueError, match=r"no linear layer head.weight .*layer3.weight"):
        made(name, model, loss_fn, inner_lr=LR, steps=1).init(params)


def test_a_layer_for_the_context_that_is_not_there():
    _, loss_fn, params, _ = network()
    with pytest.raises(ValueError, match=r"no parameter norm3.bias; there are .*layer1.weight"):
        fmaml.cavia(loss_fn, inner_lr=LR, steps=1).init(params)


def test_a_pattern_that_names_nothing():
    _, loss_fn, params, tasks = network()
    with pytest.raises(ValueError, match=r"'head.\*'; there are .*layer3.weight"):
        fmaml.anil(loss_fn, inner_lr=LR, steps=1).adapt(params, take(tasks, 0).support)
    with pytest.raises(ValueError, match="nothing could be adapted"):
        fmaml.maml(loss_fn, inner_lr=LR, steps=1, only=()).adapt(params, take(tasks, 0).support)


def test_no_inner_steps_no_loss_after_each():
    model, loss_fn, _, _ = images()
    with pytest.raises(ValueError, match="takes no inner steps"):
        fmaml.multi_step(fmaml.protonet(loss_fn, model.apply), loss_fn, until=3)


@pytest.mark.parametrize("rule", [fmaml.adam(0.1), fmaml.adamw(0.1), fmaml.momentum(0.1)])
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_a_parameter_without_a_gradient_makes_no_nan_in_the_inner_optimizer(rule, batching):
    _, loss_fn, params, tasks = network()
    params = {**params, "idle": torch.ones(2, dtype=F64)}
    algorithm = fmaml.maml(loss_fn, inner_lr=fmaml.chain(fmaml.clip_by_global_norm(1.0), rule), steps=3)
    grads, _ = fmaml.meta_grad(algorithm, params, tasks, batching=batching)
    assert all(g.isfinite().all() for g in grads.values())


def test_fillers_have_no_say():
    """Rows with label -1 only fill up a batch."""
    model = fmaml.mlp(inputs=(4,), outputs=3, hidden=[8])
    loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    params, task = doubled(model.init(torch.Generator().manual_seed(0))), take(image_tasks(1, (4,)), 0)
    more = Batch(
        torch.cat([task.support.x, torch.rand(2, 4, dtype=F64)]), torch.cat([task.support.y, -torch.ones(2).long()])
    )
    for method in (fmaml.protonet, fmaml.r2d2):
        algorithm = method(loss_fn, model.apply, head="layer2")
        theta = algorithm.init(params)
        assert relative(algorithm.adapt(theta, more), algorithm.adapt(theta, task.support)) < 1e-12


@pytest.mark.parametrize("name", sorted(CLASSES_ONLY))
def test_a_class_without_an_example_is_never_predicted(name):
    """A network for three classes on tasks of two: what it says is what a network for two would say."""
    model, loss_fn, params, _ = images()
    task = take(image_tasks(1, (1, 16, 16), ways=2), 0)
    small = {**params, "head.weight": params["head.weight"][:2], "head.bias": params["head.bias"][:2]}
    algorithm = made(name, model, loss_fn, inner_lr=0.1, steps=2)
    three, two = (model.apply(algorithm.adapt(algorithm.init(p), task.support), task.query.x) for p in (params, small))
    assert (three[:, 2] < -1e8).all()
    assert relative(three[:, :2], two) < 1e-12


@pytest.mark.parametrize(("n", "size"), [(6, 2), (5, 2), (7, 3), (1, 1), (10, 10), (4, 3), (25, 10)])
def test_minibatches_are_fair(n, size):
    batch, seen = Batch(torch.arange(n), torch.arange(n)), []
    parts = minibatches(batch, size)
    for _ in range(n):
        seen += next(parts).y.tolist()
    assert all(seen.count(i) == size for i in range(n))
    assert len(set(seen[:n])) == n


@pytest.mark.parametrize("size", [0, 6])
def test_minibatches_of_none_or_more_than_all(size):
    with pytest.raises(ValueError, match=rf"minibatch = {size}: the support set has 5 examples; give 1 to 5"):
        next(minibatches(Batch(torch.arange(5), torch.arange(5)), size))


def test_minibatches_mix_the_classes():
    labels = torch.arange(5).repeat_interleave(10)
    first = next(minibatches(Batch(labels, labels), 5))
    assert len(first.y.unique()) >= 4


def peak(fn) -> int:
    """The most bytes that were held at a time, as torch's own profiler saw them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            fn()
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def test_imaml_needs_no_more_memory_for_more_steps():
    model = fmaml.mlp(inputs=(64,), outputs=2, hidden=[256])
    loss_fn, tasks = fmaml.supervised(model.apply, fmaml.mse), regression_tasks(2, 64, 2, n=64)
    params = doubled(model.init(torch.Generator().manual_seed(0)))

    def growth(method):
        few, many = (
            peak(lambda k=k: fmaml.meta_grad(method(loss_fn, inner_lr=0.01, steps=k), params, tasks)) for k in (2, 12)
        )
        return many / few

    assert growth(fmaml.maml) > 2
    assert growth(fmaml.imaml) < 1.01


def test_a_task_is_two_batches():
    assert isinstance(image_tasks(1, (1, 16, 16)), Task)
