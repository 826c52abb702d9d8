"""Time one meta-gradient in fmaml and in other libraries, for the same network, data and numbers.

    python benchmarks/peers.py [--device cpu] [--json OUT] [--rows ROW ..]

The rows are those of `networks.py`; by default the sinusoid network, conv4 as on Omniglot, and conv4 as on
mini-ImageNet, which only some libraries compute. All libraries run in turn in one process, in float32 with their
default settings. Each row has the relative error of the meta-gradient of two tasks against fmaml's, in float64. A wrong
gradient is timed, too, and marked. (In float32 a ReLU with an input near zero may fall on either side.) `pip install -e
'.[bench]'` installs the libraries. A library that is missing or fails says so in its row. On a CPU, JAX uses all cores,
whatever torch's number of threads.
"""

import contextlib
import os
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

import torch
from measure import Bench, Run, ratio, shown
from networks import ROWS, Problem, Row
from peers_jax import jax_looped, jax_vmapped
from peers_packages import higher_loop, iteryne_loop, parallel_metalearn, torchopt_loop
from peers_torch import autograd_loop, gradient_outside, module, modules_outside
from torch import Tensor

import fmaml
from fmaml.training.compiled import options_for
from fmaml.tree import global_norm, map_leaves
from fmaml.types import Params, Task

PACKAGES = ("higher", "torchopt", "iteryne", "parallel-metalearn", "jax", "jaxlib")
DEFAULT = ("mlp 40-40", "conv4 28x28x1", "conv4 84x84x3, 5 steps")
SAME = 1e-9  # relative error in float64: another order of summation stays below it, a wrong derivative does not
COMPILING = 200  # most seconds, for both precisions


def vmapped(problem: Problem, tasks: Task, steps: int) -> Run:
    algorithm = problem.maml(steps)
    return lambda: fmaml.meta_grad(algorithm, problem.params, tasks)[0]


def looped(problem: Problem, tasks: Task, steps: int) -> Run:
    algorithm = problem.maml(steps)
    return lambda: fmaml.meta_grad(algorithm, problem.params, tasks, batching="loop")[0]


def compiled(problem: Problem, tasks: Task, steps: int) -> Run:
    """One graph, as with train.compile=true; compiled before the timing."""
    algorithm = problem.maml(steps)

    def gradient(theta: Params) -> Params:
        return fmaml.meta_grad(algorithm, theta, tasks)[0]

    fast = torch.compile(gradient, fullgraph=True, dynamic=False, options=options_for("inductor"))
    return lambda: fast(problem.params)


def by_module(problem: Problem, tasks: Task, steps: int) -> Run:
    """The same layers as a torch module, by `from_module`."""
    model = fmaml.from_module(module(problem))
    return vmapped(problem._replace(apply=model.apply), tasks, steps)


PEERS: dict[str, Callable[[Problem, Task, int], Run]] = {
    "fmaml, vmapped": vmapped,
    "fmaml, from_module": by_module,
    "fmaml, looped": looped,
    "fmaml, compiled": compiled,
    "autograd loop": autograd_loop,
    "higher": higher_loop,
    "TorchOpt": torchopt_loop,
    "iteryne": iteryne_loop,
    "parallel-metalearn": parallel_metalearn,
    "torch.func, gradient outside": gradient_outside,
    "torch.func, nn.BatchNorm2d": modules_outside,
    "JAX, jit(vmap)": jax_vmapped,
    "JAX, jit, looped": jax_looped,
}


SMALL_ROWS = ("mlp 40-40", "conv4 28x28x1")
ON_SMALL_ROWS = (
    "fmaml, from_module",
    "fmaml, compiled",
    "torch.func, gradient outside",
    "torch.func, nn.BatchNorm2d",
    "JAX, jit(vmap)",  # it takes 10 GB and a minute for 84x84x3
)


def main() -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # otherwise JAX takes most of a GPU's memory
    bench = Bench(__doc__, seconds=600, rows={"nargs": "+", "choices": list(ROWS), "default": DEFAULT})
    bench.result["environment"]["versions"] |= versions(*PACKAGES)
    for name in bench.args.rows[:1] if bench.quick else bench.args.rows:
        if bench.left() < 0:
            bench.leave_out({"network": name}, name, "no time left")
        else:
            compare(bench, name, ROWS[name])


def compare(bench: Bench, network: str, row: Row) -> None:
    problem, steps, small = row.make(bench.device), row.steps, network in SMALL_ROWS
    tasks = 4 if bench.quick else row.tasks
    batch = problem.tasks(tasks)
    exact = problem._replace(params=map_leaves(double, problem.params))
    exact_batch = map_leaves(lambda leaf: double(leaf[:2]), batch)
    right = vmapped(exact, exact_batch, steps)()
    runs, errors, why = {}, {}, {}
    for name, peer in PEERS.items():
        if name.endswith("BatchNorm2d") and "norm1.weight" not in problem.params:
            continue
        if (name.endswith("compiled") and bench.quick) or (name in ON_SMALL_ROWS and not small):
            continue
        if name.endswith("compiled") and bench.left() < COMPILING:
            why[name] = "no time left to compile"
            continue
        try:
            with jax_in_float64():
                found = peer(exact, exact_batch, steps)()
            errors[name] = error(found, right)
            runs[name] = peer(problem, batch, steps)
        except ModuleNotFoundError as missing:
            why[name] = f"not installed ({missing.name})"
        except Exception as failure:  # another library may raise anything
            why[name] = f"does not run: {type(failure).__name__}: {failure}".splitlines()[0]
    timed = {name: run for name, run in runs.items() if name not in why}
    seconds = bench.time(timed, seconds=40, least=5 if small else 2)
    for name in runs | why:
        entry = {"network": network, "tasks": tasks, "steps": steps, "way": name, "relative_error": errors.get(name)}
        if name in why:
            bench.leave_out(entry, f"{network}, {name}", why[name])
            continue
        against = f"{ratio(seconds[name], seconds['fmaml, vmapped']):.2f}"
        entry["seconds"] = {"meta_gradient": seconds[name]}
        off = f"{errors[name]:.0e}" + (", another gradient" if not errors[name] < SAME else "")
        bench.add(entry, case=f"{network}, {name}", time=shown(seconds[name]), ratio=against, error=off)


def error(grads: dict[str, Any], expected: Params) -> float:
    """||grads - expected|| / ||expected||."""
    if grads.keys() != expected.keys():
        raise ValueError(f"gradients of {list(grads)}")
    device = next(iter(expected.values())).device
    found = {name: g if isinstance(g, Tensor) else torch.from_numpy(g.__array__().copy()) for name, g in grads.items()}
    apart = {name: found[name].to(device) - g for name, g in expected.items()}
    return float(global_norm(apart) / global_norm(expected))


def double(leaf: Tensor) -> Tensor:
    return leaf.double() if leaf.is_floating_point() else leaf


def jax_in_float64() -> contextlib.AbstractContextManager[Any]:
    """Let JAX use float64; by default it converts every number to float32."""
    try:
        jax = import_module("jax")
    except ModuleNotFoundError:
        return contextlib.nullcontext()
    where = jax if hasattr(jax, "enable_x64") else import_module("jax.experimental")  # in older versions
    return where.enable_x64(True)


def versions(*packages: str) -> dict[str, str]:
    """The versions of the installed packages."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


if __name__ == "__main__":
    main()
