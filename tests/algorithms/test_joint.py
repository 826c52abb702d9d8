"""Joint training: the plain gradient of both losses, and MAML's own fine-tuning."""

import torch
from problems import F64, doubled, regression_tasks, relative
from torch.func import grad

import fmaml
from fmaml.algorithms.joint import joint
from fmaml.config.build import build, joint_baseline
from fmaml.config.load import load_config
from fmaml.tree import map_leaves, take


def test_trains_on_all_examples_without_adapting():
    model = fmaml.mlp(inputs=(3,), outputs=2)
    theta, tasks = doubled(model.init(torch.Generator().manual_seed(0))), regression_tasks(4, 3, 2)
    loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    everything = fmaml.Batch(*(torch.cat(pair, 1).flatten(0, 1) for pair in zip(*tasks, strict=True)))
    grads, metrics = fmaml.meta_grad(joint(loss_fn, inner_lr=0.1, steps=3), theta, tasks)
    assert relative(grads, grad(loss_fn)(theta, everything)) < 1e-13
    query = map_leaves(lambda t: t.flatten(0, 1), tasks.query)
    assert relative(metrics["query_loss"], loss_fn(theta, query)) < 1e-13


def test_fine_tunes_as_maml_does():
    model = fmaml.mlp(inputs=(3,), outputs=2)
    theta, task = doubled(model.init(torch.Generator().manual_seed(0))), take(regression_tasks(1, 3, 2), 0)
    loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    both = [method(loss_fn, inner_lr=0.1, steps=3) for method in (joint, fmaml.maml)]
    one, two = (algorithm.adapt(theta, task.support) for algorithm in both)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert one["layer1.weight"].dtype == F64


def test_the_baseline_of_an_experiment_fine_tunes_by_its_inner_loop():
    config = load_config("sinusoid", ["algorithm.inner=adam", "algorithm.steps=3", "algorithm.only=[layer3.*]"])
    experiment = build(config, torch.device("cpu"))
    theta, task = experiment.model.init(torch.Generator().manual_seed(0)), experiment.source.sample("test", 0, range(1))
    both = [e.algorithm.adapt(theta, take(task, 0).support) for e in (experiment, joint_baseline(config, experiment))]
    assert all(torch.equal(both[0][k], both[1][k]) for k in theta)
