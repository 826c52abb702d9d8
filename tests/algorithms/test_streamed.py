"""Learning from a stream: closed forms, a loop by hand, and equal results vmapped, looped and recomputed."""

import pytest
import torch
from family import walk
from problems import F64, doubled, peak, relative

import fmaml
from fmaml import Batch, Task
from fmaml.tree import take

pytestmark = pytest.mark.core

LR = 0.3


def squared(params, batch):
    return 0.5 * (params["p"] - batch.y).square().mean()


def numbers(tasks, chunks, n=2):
    """Tasks that are streams of numbers: ``chunks`` chunks of ``n`` to learn, and one to predict."""
    y = torch.randn(tasks, (chunks + 1) * n, dtype=F64, generator=torch.Generator().manual_seed(1))
    support, query = y.split([chunks * n, n], 1)
    return Task(Batch(support, support), Batch(query, query))


@pytest.mark.parametrize("remat", [True, False])
@pytest.mark.parametrize("chunks", [0, 1, 5, 17])
def test_closed_form_on_a_quadratic_stream(chunks, remat):
    """With mean m_k of chunk k, p_k = (1 - a) p_k-1 + a m_k and dp_k/dp_0 = (1 - a)^k; the variance adds a constant."""
    tasks, p = numbers(1, chunks), 0.7
    every = torch.cat([tasks.support.y, tasks.query.y], 1).view(chunks + 1, 2)
    loss = gradient = 0.0
    now = p
    for k, chunk in enumerate(every):
        loss += 0.5 * (now - chunk).square().mean() / (chunks + 1)
        gradient += (1 - LR) ** k * (now - chunk.mean()) / (chunks + 1)
        now = (1 - LR) * now + LR * chunk.mean()
    algorithm = fmaml.streamed(squared, inner_lr=LR, chunks=chunks, remat=remat)
    grads, metrics = fmaml.meta_grad(algorithm, {"p": torch.tensor(p, dtype=F64)}, tasks)
    assert relative((grads["p"], metrics["query_loss"]), (gradient, loss)) < 1e-14


def language_model():
    model = fmaml.transformer(inputs=(6,), outputs=5, width=8, heads=2, layers=1)
    theta = doubled(model.init(torch.Generator().manual_seed(0)))
    symbols = torch.randint(5, (3, 10, 7), generator=torch.Generator().manual_seed(2))
    streams = Batch(symbols[..., :-1], symbols[..., 1:])
    tasks = Task(*(Batch(*(t[:, part] for t in streams)) for part in (slice(8), slice(8, 10))))
    return fmaml.supervised(model.apply, fmaml.cross_entropy), theta, tasks


def by_hand(loss_fn, theta, tasks, chunks, names, first_order):
    """The mean loss of each task and its gradient, with a loop and torch.autograd."""
    total = 0.0
    leaf = {name: p.clone().requires_grad_() for name, p in theta.items()}
    for i in range(len(tasks.query.y)):
        x, y = tasks.support.x[i], tasks.support.y[i]
        phi = leaf
        for chunk in map(Batch, x.chunk(chunks), y.chunk(chunks)):
            loss = loss_fn(phi, chunk)
            total = total + loss
            grads = torch.autograd.grad(loss, [phi[name] for name in names], create_graph=True)
            grads = [g.detach() for g in grads] if first_order else grads
            phi = phi | {name: phi[name] - LR * g for name, g in zip(names, grads, strict=True)}
        total = total + loss_fn(phi, Batch(tasks.query.x[i], tasks.query.y[i]))
    total = total / (len(tasks.query.y) * (chunks + 1))
    return dict(zip(leaf, torch.autograd.grad(total, list(leaf.values())), strict=True)), {"query_loss": total.detach()}


@pytest.mark.parametrize("options", [{}, {"batching": "loop"}, {"chunk_size": 2}], ids=["vmap", "loop", "chunks"])
@pytest.mark.parametrize("remat", [True, False])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("only", [("*",), ("block1.up.*", "block1.down.*")])
def test_equals_a_loop_by_hand(only, first_order, remat, options):
    loss_fn, theta, tasks = language_model()
    algorithm = fmaml.streamed(loss_fn, inner_lr=LR, chunks=4, only=only, first_order=first_order, remat=remat)
    names = [name for name in theta if only == ("*",) or name.startswith(("block1.up", "block1.down"))]
    expected = by_hand(loss_fn, theta, tasks, 4, names, first_order)
    assert relative(fmaml.meta_grad(algorithm, theta, tasks, **options), expected) < 1e-12


def test_a_factor_outside_the_adapted_part_is_a_learnt_rate():
    """With p = s q a step of q at rate a is one of p at rate a s^2, and the meta-gradient of s is not 0."""
    tasks, start, s = numbers(2, 4), 0.7, 1.5
    theta = {"q": torch.tensor(start / s, dtype=F64), "s": torch.tensor(s, dtype=F64)}
    scaled = fmaml.streamed(
        lambda params, batch: squared({"p": params["s"] * params["q"]}, batch), inner_lr=LR, chunks=4, only=["q"]
    )
    plain = fmaml.streamed(squared, inner_lr=LR * s**2, chunks=4)
    grads, metrics = fmaml.meta_grad(scaled, theta, tasks)
    expected, _ = fmaml.meta_loss(plain, {"p": torch.tensor(start, dtype=F64)}, tasks)
    assert relative(metrics["query_loss"], expected) < 1e-14

    def loss(s):  # at a fixed start, by its rate alone
        return fmaml.meta_loss(scaled, {"q": start / s, "s": s}, tasks)[0]

    slope = (loss(theta["s"] + 1e-6) - loss(theta["s"] - 1e-6)) / 2e-6
    assert relative(grads["s"] - grads["q"] * start / s**2, slope) < 1e-7


@pytest.mark.parametrize("inner", ["momentum", "adam"])
def test_any_rule_recomputed_equals_kept(inner):
    loss_fn, theta, tasks = language_model()
    again, kept = (
        fmaml.streamed(loss_fn, inner_lr=0.05, chunks=8, inner=inner, remat=remat) for remat in (True, False)
    )
    assert relative(fmaml.meta_grad(again, theta, tasks), fmaml.meta_grad(kept, theta, tasks)) < 1e-12


def test_without_chunks_it_is_maml_before_adaptation():
    loss_fn, theta, tasks = language_model()
    streamed, maml = fmaml.streamed(loss_fn, inner_lr=LR, chunks=0), fmaml.maml(loss_fn, inner_lr=LR, steps=0)
    assert relative(fmaml.meta_grad(streamed, theta, tasks), fmaml.meta_grad(maml, theta, tasks)) < 1e-14


def test_one_chunk_adapts_as_maml_does():
    loss_fn, theta, tasks = language_model()
    support = take(tasks, 0).support
    streamed, maml = fmaml.streamed(loss_fn, inner_lr=LR, chunks=1), fmaml.maml(loss_fn, inner_lr=LR, steps=1)
    assert relative(streamed.adapt(theta, support), maml.adapt(theta, support)) == 0


def test_a_stream_cut_in_two_with_phi_carried_over_is_the_whole():
    loss_fn, theta, tasks = language_model()
    support = take(tasks, 0).support
    whole = fmaml.streamed(loss_fn, inner_lr=LR, chunks=8)
    half = fmaml.streamed(loss_fn, inner_lr=LR, chunks=4)
    first, second = (Batch(support.x[part], support.y[part]) for part in (slice(4), slice(4, 8)))
    assert relative(half.adapt(half.adapt(theta, first), second), whole.adapt(theta, support)) == 0
    assert relative(walk(whole)(theta, support)[-1], whole.adapt(theta, support)) == 0


def test_evaluate_scores_each_phi_on_the_next_chunk():
    tasks, theta = numbers(3, 4), {"p": torch.tensor(0.7, dtype=F64)}
    algorithm = fmaml.streamed(squared, inner_lr=LR, chunks=4)
    by_position = fmaml.evaluate(algorithm, lambda phi, task: squared(phi, task.query), theta, tasks)
    assert by_position.shape == (3, 5)
    assert relative(by_position.mean(), fmaml.meta_loss(algorithm, theta, tasks)[0]) < 1e-14
    first = (0.7 - tasks.support.y[:, :2]).square().mean(1) / 2
    assert relative(by_position[:, 0], first) < 1e-14


def test_memory_grows_with_the_root_of_the_chunks():
    """Bytes that are alive at the peak: 64 chunks against 4, recomputed and kept."""
    model = fmaml.mlp(inputs=(16,), outputs=16, hidden=[32, 32], activation="tanh")
    theta, loss_fn = doubled(model.init(torch.Generator().manual_seed(0))), fmaml.supervised(model.apply, fmaml.mse)

    def held(remat: bool, chunks: int) -> int:
        x = torch.randn(1, 1, 16, dtype=F64).expand(1, chunks * 500, 16)  # takes no memory of its own
        task = Task(Batch(x, x), Batch(x[:, :500], x[:, :500]))
        algorithm = fmaml.streamed(loss_fn, inner_lr=0.01, chunks=chunks, remat=remat)
        return peak(lambda: fmaml.meta_grad(algorithm, theta, task))

    assert held(True, 64) < 1.3 * held(True, 4)
    assert held(False, 16) > 3 * held(False, 4)


@pytest.mark.parametrize("only", [("*",), ("layer3.*",)])
def test_twice_the_root_of_the_chunks_copies_of_the_adapted_part_are_kept(only):
    model = fmaml.mlp(inputs=(64,), outputs=64, hidden=[64, 64], activation="tanh")
    theta, loss_fn = doubled(model.init(torch.Generator().manual_seed(0))), fmaml.supervised(model.apply, fmaml.mse)
    adapted = sum(8 * p.numel() for name, p in theta.items() if only == ("*",) or name.startswith("layer3"))

    def held(chunks: int) -> int:
        x = torch.randn(1, 1, 64, dtype=F64).expand(1, chunks, 64)
        task = Task(Batch(x, x), Batch(x[:, :1], x[:, :1]))
        algorithm = fmaml.streamed(loss_fn, inner_lr=0.01, chunks=chunks, only=only)
        return peak(lambda: fmaml.meta_grad(algorithm, theta, task))

    copies = (held(144) - held(16)) / adapted / (12 - 4)
    assert 1.8 < copies < 2.2


def test_beside_the_copies_memory_is_that_of_one_inner_step():
    """Peak memory of K chunks is A + 2 sqrt(K) |phi|, with A at most 1.1 times one step and its adjoint alone."""
    model = fmaml.mlp(inputs=(64,), outputs=64, hidden=[64, 64], activation="tanh")
    theta, loss_fn = doubled(model.init(torch.Generator().manual_seed(0))), fmaml.supervised(model.apply, fmaml.mse)
    copy = sum(8 * p.numel() for p in theta.values())
    x = torch.randn(1, 1, 64, dtype=F64).expand(1, 16 * 500, 64)
    task, chunk = Task(Batch(x, x), Batch(x[:, :500], x[:, :500])), Batch(x[0, :500], x[0, :500])

    def step(phi):
        grads, loss = torch.func.grad_and_value(loss_fn)(phi, chunk)
        return {name: phi[name] - 0.01 * grads[name] for name in phi}, loss

    ones = torch.ones((), dtype=F64)
    alone = peak(lambda: torch.func.vjp(step, theta)[1]((theta, ones)))
    whole = peak(lambda: fmaml.meta_grad(fmaml.streamed(loss_fn, inner_lr=0.01, chunks=16), theta, task))
    assert whole - 2 * 4 * copy < 1.1 * alone


def test_more_steps_read_the_stream_again():
    loss_fn, theta, tasks = language_model()
    support = take(tasks, 0).support
    algorithm = fmaml.streamed(loss_fn, inner_lr=LR, chunks=4)
    *_, again = walk(algorithm)(theta, support, 8)
    assert relative(again, algorithm.adapt(algorithm.adapt(theta, support), support)) == 0


@pytest.mark.parametrize(("examples", "found"), [(10, "10 examples"), (1, "1 example,"), (0, "0 examples")])
def test_an_unequal_stream_is_named(examples, found):
    tasks, theta = numbers(2, 5), {"p": torch.tensor(0.7, dtype=F64)}
    short = tasks._replace(support=Batch(*(part[:, :examples] for part in tasks.support)))
    algorithm = fmaml.streamed(squared, inner_lr=LR, chunks=3)
    message = f"streamed: chunks = 3: the support set has {found}.* must divide into equal chunks; give a divisor"
    with pytest.raises(ValueError, match=message):
        fmaml.meta_grad(algorithm, theta, short)


@pytest.mark.parametrize(("chunks", "rule"), [(-1, "0 or more"), (2.0, "an integer")])
def test_a_wrong_number_of_chunks_is_named(chunks, rule):
    with pytest.raises(ValueError, match=f"chunks = {chunks}: must be {rule}"):
        fmaml.streamed(squared, inner_lr=LR, chunks=chunks)


def test_passages_that_overlap_attend_to_the_chunk_before():
    """The symbols that a passage repeats are context: their targets are ignored in the loss and its gradient."""
    model = fmaml.transformer(inputs=(6,), outputs=5, width=8, heads=2, layers=1)
    theta = doubled(model.init(torch.Generator().manual_seed(0)))
    text = torch.randint(5, (1, 15), generator=torch.Generator().manual_seed(3))
    passages = text.unfold(1, 7, 4)  # 3 passages of 6 symbols; each repeats 2 of those before
    y = passages[..., 1:].clone()
    y[..., :2] = -1
    stream = Batch(passages[..., :-1], y)
    task = Task(*(Batch(*(t[:, part] for t in stream)) for part in (slice(2), slice(2, 3))))
    loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    phi, losses = dict(theta), []
    for k in range(3):
        x, y = passages[0, k, :-1], passages[0, k, 1:]

        def last_four(p, x=x, y=y):
            return torch.nn.functional.cross_entropy(model.apply(p, x[None])[0, 2:], y[2:])

        losses.append(last_four(phi))
        grads = torch.func.grad(last_four)(phi)
        phi = {name: phi[name] - LR * grads[name] for name in phi}
    algorithm = fmaml.streamed(loss_fn, inner_lr=LR, chunks=2)
    assert relative(fmaml.meta_loss(algorithm, theta, task)[0], torch.stack(losses).mean()) < 1e-12
