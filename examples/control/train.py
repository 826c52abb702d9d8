"""Train a policy for `navigation` in a script: python -m examples.control.train [META_STEPS]."""

import sys

import torch

import fmaml

from .navigation import navigation
from .policy import policy


def train(meta_steps: int = 100) -> list[float]:
    """Meta-train, and return the mean return on 50 unseen goals after 0, 1, 2 and 3 inner steps."""
    source = navigation(seed=0, device=torch.device("cpu"))
    model = policy(inputs=source.inputs, outputs=source.outputs)
    assert source.loss is not None
    algorithm = fmaml.maml(source.loss(model.apply), inner_lr=0.1, steps=1)
    optimizer = fmaml.adam(3e-3)
    theta = model.init(torch.Generator().manual_seed(0))
    state = fmaml.init_state(algorithm, optimizer, theta)
    for step in range(meta_steps):
        goals = source.sample("train", step, range(20))  # 20 goals, and noise for 20 + 20 episodes each
        state, metrics = fmaml.meta_step(algorithm, optimizer, state, goals)
        if step % 20 == 0:
            print(f"meta-step {step}: query loss {float(metrics['query_loss']):.1f}")
    score = source.settings[0](model.apply, source.criterion)
    unseen = source.sample("test", 0, range(50))
    return fmaml.evaluate(algorithm, score, state.theta, unseen, steps=3).mean(0).tolist()


if __name__ == "__main__":
    for k, mean in enumerate(train(*map(int, sys.argv[1:]))):
        print(f"return after {k} inner steps: {mean:.1f}")
