"""Trains with a state that is divided over the processes and with one that is not, and compares the bits.

python -m torch.distributed.run --nproc-per-node N sharded_theta.py OUT [IN]
"""

import os
import sys

import torch
import torch.distributed as dist

import fmaml
from fmaml import distributed
from fmaml.data.sources.sinusoid import sinusoid
from fmaml.optim.sharded import own_state, sharded, whole_state
from fmaml.tree import leaves, map_leaves

OPTIMIZERS = {"adam": fmaml.adam(1e-2), "adamw": fmaml.adamw(1e-2, weight_decay=0.1), "momentum": fmaml.momentum(1e-2)}
TASKS = 12


def alike(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


def steps(algorithm, optimizer, state, first: int, last: int):
    """The state after these meta-steps."""
    for step in range(first, last):
        tasks = source.sample("train", step, distributed.slice(TASKS))
        state, _ = fmaml.meta_step(algorithm, optimizer, state, tasks, reduce=distributed.reduce(TASKS))
    return state


if __name__ == "__main__":
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    source = sinusoid(seed=0, device=torch.device("cpu"))
    model = fmaml.mlp(inputs=source.inputs, outputs=source.outputs, hidden=[7])
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.01, steps=1)
    params = model.init(torch.Generator().manual_seed(0))
    numbers = sum(leaf.numel() for leaf in leaves(params))
    saved = {}
    for name, optimizer in OPTIMIZERS.items():
        clipped = fmaml.chain(fmaml.clip_by_global_norm(1.0), optimizer)
        divided = fmaml.chain(fmaml.clip_by_global_norm(1.0), sharded(optimizer))
        plain = steps(algorithm, clipped, fmaml.init_state(algorithm, clipped, params), 1, 11)
        state = steps(algorithm, divided, fmaml.init_state(algorithm, divided, params), 1, 11)
        assert alike(plain.theta, state.theta), name
        assert max(leaf.numel() for leaf in leaves(state.opt_state)) == -(-numbers // distributed.count()), name
        whole = whole_state(state.opt_state, state.theta)
        assert alike(own_state(whole, state.theta), state.opt_state), name
        saved[name] = (state.theta, leaves(whole))
        if len(sys.argv) > 2:  # saved by another number of processes, it goes on as without a division
            theta, kept = torch.load(sys.argv[2])[name]
            found = iter(kept)
            whole = map_leaves(lambda _, found=found: next(found), whole)
            again = steps(algorithm, divided, fmaml.MetaState(theta, own_state(whole, theta), 10), 11, 16)
            expected = steps(algorithm, clipped, plain._replace(theta=theta), 11, 16)
            for ours, theirs in zip(leaves(again.theta), leaves(expected.theta), strict=True):
                assert torch.allclose(ours, theirs, atol=1e-6), name
    if distributed.rank() == 0:
        torch.save(saved, sys.argv[1])
    if dist.is_initialized():
        dist.destroy_process_group()
