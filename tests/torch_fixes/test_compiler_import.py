"""A process's first gradients do not import torch's compiler; a compiled gradient is still the same."""

import math
import subprocess
import sys

from fmaml.torch_fixes.compiler_import import Deferred

FIRST_STEPS = """
import sys
import torch, fmaml
from fmaml.data.sources.sinusoid import sinusoid

waves = sinusoid(seed=0, device=torch.device("cpu")).sample("train", 1, range(4))
images = fmaml.Batch(torch.rand(4, 5, 1, 28, 28), torch.arange(5).repeat(4, 1))
optimizer = fmaml.adam(1e-3)
before = len(sys.modules)
for model, criterion, tasks in (
    (fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8), fmaml.cross_entropy, fmaml.Task(images, images)),
    (fmaml.mlp(inputs=(1,), outputs=1), fmaml.mse, waves),
):
    loss_fn, theta = fmaml.supervised(model.apply, criterion), model.init(torch.Generator().manual_seed(0))
    algorithm = fmaml.maml(loss_fn, inner_lr=0.1, steps=1)
    state = fmaml.init_state(algorithm, optimizer, theta)
    for batching in ("vmap", "loop"):
        fmaml.meta_step(algorithm, optimizer, state, tasks, batching=batching)
    fmaml.evaluate(algorithm, fmaml.inductive(model.apply, criterion), theta, tasks)
print(len(sys.modules) - before, *sorted({"torch._dynamo", "sympy", "torch.distributed.tensor"} & sys.modules.keys()))
"""
COMPILED = """
of_theta = torch.compile(lambda theta: fmaml.meta_grad(algorithm, theta, tasks)[0], backend="aot_eager", fullgraph=True)
expected = fmaml.meta_grad(algorithm, theta, tasks)[0]
print(all(torch.allclose(grad, expected[name], atol=1e-6) for name, grad in of_theta(theta).items()))
print(torch._dynamo is sys.modules["torch._dynamo"])
"""


def test_the_first_gradients_import_no_compiler_and_leave_it_whole():
    command = [sys.executable, "-c", FIRST_STEPS + COMPILED]
    (imported, *named), *then = map(str.split, subprocess.check_output(command, text=True).splitlines())
    assert (int(imported) < 100, named) == (True, [])  # 57 of fmaml, einops and filelock
    assert then == [["True"], ["True"]]


def test_a_deferred_module_is_imported_for_all_but_the_known_names():
    module = Deferred("math", pi=3)
    assert (module.pi, module.e) == (3, math.e)
    module.new = 5
    assert math.new == 5  # pyright: ignore[reportAttributeAccessIssue]
    del math.new  # pyright: ignore[reportAttributeAccessIssue]
