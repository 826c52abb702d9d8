"""Each algorithm against what it must be: one table of (algorithm, problem, known answer), in float64 to 1e-12."""

import math
from functools import partial
from typing import Any, TypeAlias, cast

import pytest
import torch
from family import DIM, LR, STEPS, annealed, bowls, gradient, hold, images, listed, network, same, times, walk
from problems import F64, contraction, quadratic, relative, residual
from torch.func import grad, vmap

import fmaml
from fmaml import Algorithm
from fmaml.algorithms.imaml import conjugate_gradients
from fmaml.algorithms.lslr import LslrTheta
from fmaml.algorithms.reptile import minibatches
from fmaml.tree import leaves, map_leaves, take

Settings: TypeAlias = dict[str, Any]

LAWS = []
law = partial(listed, LAWS)


@pytest.mark.parametrize("answers", LAWS)
def test_law(answers):
    hold(answers)


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
    phi = params
    for part in minibatches(task.support, 2, STEPS):
        phi = fmaml.inner_update(loss_fn, phi, part, LR)
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
    settings: Settings = {"inner_lr": LR, "steps": STEPS}
    variants: list[Settings] = [{}, {"first_order": True}, {"only": ("layer3.*",)}]
    for more in variants:
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
    phi = vmap(lambda support: walk(algorithm)(learnt, support, 4))
    learnt: LslrTheta = {"params": {"p": theta}, "rates": {"p": torch.tensor([0.1, 0.5], dtype=F64)}}
    expected = [theta.expand(7, DIM)]
    for rate in (0.1, 0.5, 0.5, 0.5):
        expected.append(expected[-1] - rate * times(tasks.support.x, expected[-1] - tasks.support.y))
    yield phi(tasks.support), [{"p": p} for p in expected]


@law
def mamlpp_with_every_part_off_is_maml():
    _, loss_fn, params, tasks = images()
    settings = {"inner_lr": LR, "steps": 2}
    off = fmaml.mamlpp(loss_fn, **settings, learn_rates=False, norms_by_step=False)
    yield from same(off, fmaml.maml(loss_fn, **settings), params, tasks)


@law
def each_part_of_mamlpp_is_what_it_is_alone():
    _, loss_fn, params, tasks = images()
    settings: Settings = {"inner_lr": LR, "steps": 2}
    off: Settings = {"learn_rates": False, "norms_by_step": False}
    maml = partial(fmaml.maml, loss_fn, **settings)
    others = tuple(name for name in params if "norm" not in name)
    for part, step, alone in (
        ({"learn_rates": True}, 0, fmaml.lslr(loss_fn, **settings)),
        ({"multi_step_until": 8}, 2, annealed(fmaml.multi_step(maml(), loss_fn, until=8), 2)),
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
    assert "norms" in grads
    found = {**grads["params"], **{n: g.sum(0) for n, g in grads["norms"].items()}}
    yield {name: found[name] for name in whole}, whole


def with_norms(loss_fn, others, theta, k):
    """The loss with the norms of step k, as a function of all other parameters."""
    norms = {name: values[min(k, len(values) - 1)] for name, values in theta["norms"].items()}
    return lambda batch: loss_fn({**others, **norms}, batch)


@law
def mamlpp_has_norms_for_each_support_loss_and_the_query_loss_after_it():
    """As the authors' code: set k in the support loss of step k, and in the query loss that follows it."""
    _, loss_fn, params, tasks = images()
    for until, at, remat in ((0, 0, False), (0, 0, True), (8, 2, False)):
        settings: Settings = {"multi_step_until": until, "remat": remat}
        algorithm = fmaml.mamlpp(loss_fn, inner_lr=LR, steps=3, learn_rates=False, **settings)
        theta = map_leaves(lambda p: p + 0.1 * torch.rand_like(p), algorithm.init(params))
        weights = [0.25, 0.25, 0.5] if until else [0, 0, 1]

        def by_hand(theta, weights=weights, loss_fn=loss_fn):
            total = torch.zeros((), dtype=F64)
            for task in (take(tasks, i) for i in range(3)):
                phi = theta["params"]
                for k, weight in enumerate(weights):
                    slope = grad(lambda p, k=k, task=task: with_norms(loss_fn, p, theta, k)(task.support))(phi)
                    phi = {name: p - LR * slope[name] for name, p in phi.items()}
                    total = total + weight * with_norms(loss_fn, phi, theta, k)(task.query) / 3
            return total

        grads, _ = fmaml.meta_grad(fmaml.outer.at_step(algorithm, at), theta, tasks)
        yield grads, grad(by_hand)(theta)


@law
def mamlpp_is_judged_after_each_step_with_the_norms_of_that_step():
    _, loss_fn, params, tasks = images()
    algorithm = fmaml.mamlpp(loss_fn, inner_lr=LR, steps=2)
    theta = map_leaves(lambda p: p + 0.1 * torch.rand_like(p), algorithm.init(params))
    assert "norms" in theta
    assert not theta["norms"].keys() & theta["params"].keys()
    phis = walk(algorithm)(theta, take(tasks, 0).support, 4)
    for phi, k in zip(phis, (0, 0, 1, 1, 1), strict=True):
        own = {name: values[k] for name, values in theta["norms"].items()}
        yield {name: phi[name] for name in own}, own
    assert phis[0].keys() == params.keys()
    yield algorithm.adapt(theta, take(tasks, 0).support), phis[2]


@law
def imaml_solves_its_linear_system_exactly():
    """v = (I + A / (lambda + damping))^-1 B (phi - q), and phi the minimum of the proximal problem."""
    tasks, theta, _, _ = bowls()
    a, c, eye, strength = tasks.support.x, tasks.support.y, torch.eye(DIM, dtype=F64), 2.0
    settings = {"inner_lr": 0.4, "steps": 200, "regularization": strength, "cg_steps": 2 * DIM}
    phi = torch.linalg.solve(a + strength * eye, times(a, c) + strength * theta)
    for damping in (0.0, 3.0):
        algorithm = fmaml.imaml(quadratic, **settings, damping=damping)
        expected = torch.linalg.solve(eye + a / (strength + damping), residual(phi, tasks)).mean(0)
        yield vmap(algorithm.adapt, (None, 0))({"p": theta}, tasks.support), {"p": phi}
        yield gradient(algorithm, {"p": theta}, tasks)[0], {"p": expected}
    endless = fmaml.imaml(quadratic, **settings, damping=1e18)
    yield gradient(endless, {"p": theta}, tasks)[0], {"p": residual(phi, tasks).mean(0)}


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
def pretrain_scores_are_cosines_to_the_mean_directions():
    model, _, params, tasks = images()
    task = fmaml.Task(*reversed(take(tasks, 0)))  # several examples a class to learn from
    plain = {**params, "head.weight": torch.eye(8, dtype=F64), "head.bias": torch.zeros(8, dtype=F64)}
    support, query = (model.apply(plain, batch.x) for batch in task)
    directions = support / support.square().sum(1, keepdim=True).sqrt()
    means = torch.stack([directions[task.support.y == k].mean(0) for k in range(3)])
    phi = fmaml.pretrain(model.apply).adapt(params, task.support)
    cosines = torch.cosine_similarity(query[:, None], means[None], dim=2)
    yield model.apply(phi, task.query.x) / query.square().sum(1, keepdim=True).sqrt(), cosines


@law
def pretrain_by_ridge_solves_the_normal_equations_of_directions():
    """(F'F + lambda I) W = F'Y, features by features, where the code solves examples by examples."""
    model, _, params, tasks = images()
    task = fmaml.Task(*reversed(take(tasks, 0)))
    plain = {**params, "head.weight": torch.eye(8, dtype=F64), "head.bias": torch.zeros(8, dtype=F64)}
    support, query = (model.apply(plain, batch.x) for batch in task)
    directions = support / support.square().sum(1, keepdim=True).sqrt()
    one_hot = torch.eye(3, dtype=F64)[task.support.y]
    gram = directions.T @ directions + 0.3 * torch.eye(8, dtype=F64)
    algorithm = fmaml.pretrain(model.apply, classifier="ridge", ridge=0.3)
    phi = algorithm.adapt(params, task.support)
    yield model.apply(phi, task.query.x), query @ gram.inverse() @ directions.T @ one_hot
    # features of ten times the size have the same directions: the head stays, and the scores are ten times as large
    scaled = fmaml.pretrain(lambda p, x: tenfold(model.apply, p, x), classifier="ridge", ridge=0.3)
    yield scaled.adapt(params, task.support), phi


def tenfold(apply, params, x):
    """A network with features ten times as large and the same last layer."""
    bias = params["head.bias"]
    return 10 * apply({**params, "head.bias": 0 * bias}, x) + bias


@law
def pretrain_is_a_cosine_classifier_with_smoothed_labels():
    model, _, params, tasks = images()
    task, smoothing = take(tasks, 0), 0.3
    loss, metrics = fmaml.pretrain(model.apply, scale=4.0, smoothing=smoothing).loss(params, task)
    plain = {**params, "head.weight": torch.eye(8, dtype=F64), "head.bias": torch.zeros(8, dtype=F64)}
    f = model.apply(plain, torch.cat([task.support.x, task.query.x]))
    log_p = (4.0 * torch.cosine_similarity(f[:, None], params["head.weight"][None], dim=2)).log_softmax(1)
    y = torch.cat([task.support.y, task.query.y])
    right = log_p[torch.arange(len(y)), y]
    yield loss, -((1 - smoothing) * right + smoothing * log_p.mean(1)).mean()
    yield metrics["query_loss"], loss


@law
def unicorn_maml_does_not_depend_on_which_class_has_which_number():
    """The logits are permuted as the labels are, and plain MAML's are not."""
    model, loss_fn, params, tasks = images()
    params = {name: p + 0.1 * torch.randn_like(p) for name, p in params.items()}
    task, order = take(tasks, 0), torch.tensor([2, 0, 1])
    renamed = fmaml.Batch(task.support.x, order[task.support.y])
    logits = {}
    for make in (fmaml.unicorn_maml, fmaml.maml):
        algorithm = make(loss_fn, inner_lr=LR, steps=3)
        theta = algorithm.init(params)
        one, other = (model.apply(algorithm.adapt(theta, batch), task.query.x) for batch in (task.support, renamed))
        logits[make.__name__] = one, other[:, order]
    assert relative(*logits["maml"]) > 1e-3
    yield logits["unicorn_maml"]


@law
def unicorn_maml_is_maml_of_a_shared_vector_and_its_gradient_the_mean_over_classes():
    _, loss_fn, params, tasks = images()
    algorithm, plain = (make(loss_fn, inner_lr=LR, steps=3) for make in (fmaml.unicorn_maml, fmaml.maml))
    theta = algorithm.init(params)
    grads, metrics = fmaml.meta_grad(algorithm, theta, tasks)
    expected, same_metrics = fmaml.meta_grad(plain, theta, tasks)
    for name in ("head.weight", "head.bias"):
        expected[name] = expected[name].mean(0).expand_as(expected[name])
    yield (grads, metrics), (expected, same_metrics)


@law
def unicorn_maml_starts_as_if_the_head_were_zero():
    """Under cross-entropy: what all classes have in common changes no probability, and has no gradient."""
    model, loss_fn, params, tasks = images()
    algorithm, plain = (make(loss_fn, inner_lr=LR, steps=3) for make in (fmaml.unicorn_maml, fmaml.maml))
    theta = algorithm.init(map_leaves(lambda p: p + torch.randn_like(p), params))
    zero = theta | {name: torch.zeros_like(theta[name]) for name in ("head.weight", "head.bias")}
    task = take(tasks, 0)
    one, other = (made.adapt(start, task.support) for made, start in ((algorithm, theta), (plain, zero)))
    yield (model.apply(phi, task.query.x).softmax(-1) for phi in (one, other))
    grads, _ = fmaml.meta_grad(algorithm, theta, tasks)
    assert grads["head.weight"].abs().max() < 1e-12 < grads["conv1.weight"].abs().max()
    assert not torch.equal(theta["head.weight"], zero["head.weight"])


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
    settings: Settings = {"inner_lr": LR, "steps": 3}
    variants: list[Settings] = [{}, {"first_order": True}, {"only": ("conv*", "norm*")}]
    for more in variants:
        plain = fmaml.proto_maml(loss_fn, model.apply, **settings, **more)
        yield from same(fmaml.proto_mamlpp(loss_fn, model.apply, **settings, **more), plain, params, tasks)
    plain = fmaml.proto_maml(loss_fn, model.apply, **settings)
    algorithm = fmaml.proto_mamlpp(loss_fn, model.apply, **settings, multi_step_until=8)
    weighted = fmaml.multi_step(plain, loss_fn, until=8)
    yield from same(annealed(algorithm, 2), annealed(weighted, 2), params, tasks)
    yield from same(annealed(algorithm, 8), plain, params, tasks)


@law
def the_scale_of_prototypes_is_that_of_the_distances():
    model, loss_fn, params, tasks = images()
    support, query = take(tasks, 0)
    once, twice = (fmaml.proto_mamlpp(loss_fn, model.apply, inner_lr=LR, steps=1, scale=scale) for scale in (1.0, 2.0))
    phi, phi2 = (walk(algorithm)(algorithm.init(params), support)[0] for algorithm in (once, twice))
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
    settings: Settings = {"inner_lr": LR, "steps": 2}
    variants: list[Settings] = [{}, {"first_order": True}, {"only": ("head.*", "conv2.*")}]
    for more in variants:
        maml = fmaml.maml(loss_fn, **settings, **more)
        for method in (fmaml.meta_curvature, fmaml.alfa):
            yield from same(method(loss_fn, **settings, **more), maml, params, tasks)
    warp = fmaml.warpgrad(loss_fn, **settings)
    for i in range(3):
        support = take(tasks, i).support
        yield walk(warp)(warp.init(params), support), maml_phis(loss_fn, params, support)


def maml_phis(loss_fn, params, support):
    return fmaml.trajectory(loss_fn, params, support, LR, steps=2)


@law
def learnt_maps_on_quadratics():
    tasks, theta, _, slope = bowls()
    matrix = torch.randn(DIM, DIM, dtype=F64)
    curved = cast(Algorithm[Any], fmaml.meta_curvature(quadratic, inner_lr=LR, steps=1))
    warped = cast(Algorithm[Any], fmaml.warpgrad(quadratic, inner_lr=LR, steps=1))
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
    learnt["hidden"] = (hidden, hidden_bias)
    learnt["rates"], learnt["decays"] = (rates, hidden_bias[:1]), (decays, hidden_bias[1:])
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


def test_reptile_with_its_state_carried_is_one_adam_over_all_tasks():
    """With one task and epsilon = 1, as in the authors' code: Adam without a mean, never restarted."""
    _, loss_fn, params, tasks = network()
    tasks, support = take(tasks, slice(1)), take(tasks, 0).support
    options = {"inner_lr": 1e-2, "steps": 3, "inner": "rmsprop"}
    algorithm = fmaml.reptile(loss_fn, **options, carry_state=True)
    state = fmaml.init_state(algorithm, fmaml.sgd(1.0), params)
    kept = {name: p.clone().requires_grad_() for name, p in params.items()}
    adam = torch.optim.Adam(kept.values(), 1e-2, betas=(0.0, 0.999))
    for _ in range(4):
        state, _ = fmaml.meta_step(algorithm, fmaml.sgd(1.0), state, tasks)
        for _ in range(3):
            adam.zero_grad()
            loss_fn(kept, support).backward()
            adam.step()
    expected = {name: p.detach() for name, p in kept.items()}
    assert relative(state.theta["params"], expected) < 1e-14
    anew = fmaml.reptile(loss_fn, **options).adapt(expected, support)
    assert relative(algorithm.adapt(state.theta, support), anew) > 1e-3  # a test task begins from the state, too
