"""The meta-gradient of MAML in JAX: `jit(vmap(grad))`, and a loop of `jit(grad)` over tasks."""

from collections.abc import Callable
from functools import partial
from typing import Any

from networks import Problem, is_pooled

from fmaml.losses import mse
from fmaml.tree import leading, map_leaves
from fmaml.types import Task

Gradient = Callable[[], dict[str, Any]]


def jax_vmapped(problem: Problem, tasks: Task, steps: int) -> Gradient:
    import jax  # pyright: ignore[reportMissingImports]

    task_grad, theta, batch = prepared(problem, tasks, steps)

    @jax.jit
    def meta_grad(theta: Any, tasks: Any) -> Any:
        return jax.tree.map(lambda g: g.mean(0), jax.vmap(task_grad, (None, 0))(theta, tasks))

    return lambda: jax.block_until_ready(meta_grad(theta, batch))


def jax_looped(problem: Problem, tasks: Task, steps: int) -> Gradient:
    import jax  # pyright: ignore[reportMissingImports]

    task_grad, theta, batch = prepared(problem, tasks, steps)
    one, count = jax.jit(task_grad), leading(tasks)
    add = jax.jit(lambda a, b: jax.tree.map(lambda x, y: x + y / count, a, b))
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], batch) for i in range(count)]

    def run() -> dict[str, Any]:
        total = jax.tree.map(lambda p: 0 * p, theta)
        for task in each:
            total = add(total, one(theta, task))
        return jax.block_until_ready(total)

    return run


def prepared(problem: Problem, tasks: Task, steps: int) -> tuple[Any, Any, Any]:
    """The gradient of one task's loss, theta, and the tasks, in JAX."""
    import jax  # pyright: ignore[reportMissingImports]
    from jax import numpy as jnp  # pyright: ignore[reportMissingImports]

    apply = partial(conv4, is_pooled(problem.params)) if "conv1.weight" in problem.params else mlp

    def loss_fn(params: Any, batch: Any) -> Any:
        x, y = batch
        output = apply(params, x)
        if problem.criterion is mse:
            return ((output - y) ** 2).mean()
        return -jnp.take_along_axis(jax.nn.log_softmax(output), y[:, None], 1).mean()

    def task_loss(theta: Any, task: Any) -> Any:
        support, query = task
        phi = theta
        for _ in range(steps):
            phi = jax.tree.map(lambda p, g: p - problem.inner_lr * g, phi, jax.grad(loss_fn)(phi, support))
        return loss_fn(phi, query)

    def array(leaf: Any) -> Any:
        return jnp.asarray(leaf.cpu().numpy())

    batch = tuple(tuple(map_leaves(array, list(part))) for part in tasks)
    return jax.grad(task_loss), {name: array(p) for name, p in problem.params.items()}, batch


def conv4(pooled: bool, params: Any, x: Any) -> Any:
    from jax import lax, nn  # pyright: ignore[reportMissingImports]

    layout, strides = ("NCHW", "OIHW", "NCHW"), (1, 1) if pooled else (2, 2)
    for i in range(1, 5):
        x = lax.conv_general_dilated(x, params[f"conv{i}.weight"], strides, ((1, 1), (1, 1)), dimension_numbers=layout)
        centred = x - x.mean((0, 2, 3), keepdims=True)
        variance = (centred**2).mean((0, 2, 3), keepdims=True)
        scale, shift = (params[f"norm{i}.{part}"][:, None, None] for part in ("weight", "bias"))
        x = nn.relu(centred * lax.rsqrt(variance + 1e-5) * scale + shift)
        if pooled:
            x = lax.reduce_window(x, -float("inf"), lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = x.reshape(len(x), -1) if pooled else x.mean((2, 3))
    return x @ params["head.weight"].T + params["head.bias"]


def mlp(params: Any, x: Any) -> Any:
    from jax import nn  # pyright: ignore[reportMissingImports]

    for i in (1, 2, 3):
        x = x @ params[f"layer{i}.weight"].T + params[f"layer{i}.bias"]
        x = nn.relu(x) if i < 3 else x
    return x
