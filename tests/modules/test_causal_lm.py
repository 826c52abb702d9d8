"""Language models with LoRA: they begin as what was pretrained, which is held once and does not change."""

import json
import math
import pickle
from typing import Any

import cloudpickle
import pytest
import torch
from bases import write_gpt2
from transformers import AutoModelForCausalLM

import fmaml
from fmaml.cli.main import main
from fmaml.data.text.generate import in_context
from fmaml.modules.causal_lm import causal_lm
from fmaml.tree import map_leaves

GENERATOR = torch.Generator().manual_seed(0)


def symbols(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1))


def tasks(count: int = 3) -> fmaml.Task:
    passages = symbols(count, 4, 13)
    return fmaml.Task(*(fmaml.Batch(part[..., :-1], part[..., 1:]) for part in passages.chunk(2, 1)))


def moved(params: fmaml.Params) -> fmaml.Params:
    """The adapters after some training, in float64, so that B is not zero."""
    g = torch.Generator().manual_seed(2)
    return map_leaves(lambda leaf: 0.1 * torch.randn(leaf.shape, generator=g, dtype=torch.float64), params)


@pytest.fixture(params=["gpt2", "llama"])
def base(request) -> str:
    return str(request.getfixturevalue(request.param))


def test_it_begins_as_the_base_and_the_base_is_not_in_theta(base):
    model = causal_lm(inputs=(12,), outputs=256, base=base)
    params, x = model.init(torch.Generator().manual_seed(0)), symbols(3, 12)
    assert all(".lora_" in name for name in params)
    expected = AutoModelForCausalLM.from_pretrained(base)(input_ids=x).logits
    assert torch.allclose(model.apply(params, x), expected, atol=1e-5)
    assert not torch.allclose(model.apply(map_leaves(torch.Tensor.float, moved(params)), x), expected, atol=1e-2)


def test_an_adapter_adds_its_product_to_a_layer(gpt2):
    """h = W x + (alpha / rank) B A x: the merged layer in the base gives the same logits."""
    model = causal_lm(inputs=(12,), outputs=256, base=str(gpt2), rank=3, alpha=6.0)
    params, x = model.init(torch.Generator().manual_seed(0)), symbols(3, 12)
    name = next(name for name in params if name.endswith("h.1.attn.c_attn.lora_B.default.weight"))
    params[name] = torch.randn(params[name].shape, generator=torch.Generator().manual_seed(3))
    reference: Any = AutoModelForCausalLM.from_pretrained(gpt2)
    layer = reference.transformer.h[1].attn.c_attn.weight  # [in, out], the transpose of a Linear's
    with torch.no_grad():
        layer += 2 * (params[name] @ params[name.replace("lora_B", "lora_A")]).T
        assert torch.allclose(model.apply(params, x), reference(input_ids=x).logits, atol=1e-5)


def test_vmapped_is_looped_to_second_order(base):
    model = causal_lm(inputs=(12,), outputs=256, base=base, rank=2)
    theta = moved(model.init(torch.Generator().manual_seed(0)))
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.5, steps=2)
    vmapped, looped = (fmaml.meta_grad(algorithm, theta, tasks(), batching=how)[0] for how in ("vmap", "loop"))
    for name, value in looped.items():
        assert torch.allclose(vmapped[name], value, rtol=1e-4, atol=1e-7), name  # the base computes in float32


def test_a_pickled_model_is_the_same(gpt2):
    model = causal_lm(inputs=(12,), outputs=256, base=str(gpt2))
    copied, params = pickle.loads(cloudpickle.dumps(model)), model.init(torch.Generator().manual_seed(0))
    assert torch.equal(copied.apply(params, symbols(3, 12)), model.apply(params, symbols(3, 12)))


def test_the_support_set_as_a_prompt_is_what_stands_before_each_query(gpt2):
    model = causal_lm(inputs=(12,), outputs=256, base=str(gpt2))
    params = model.init(torch.Generator().manual_seed(0))
    task = map_leaves(lambda leaf: leaf[0], tasks())
    support = torch.cat([task.support.x, task.support.y[:, -1:]], 1).flatten()
    logits = [model.apply(params, torch.cat([support, x])[None])[0, len(support) :] for x in task.query.x]
    expected = fmaml.bits(torch.stack(logits), task.query.y)
    assert torch.allclose(in_context(model.apply, fmaml.bits)(params, task), expected, atol=1e-5)


def test_what_does_not_fit_is_one_line(gpt2, tmp_path):
    (tmp_path / "empty").mkdir()
    narrow = write_gpt2(tmp_path / "narrow", vocabulary=100)
    cases = {
        str(tmp_path / "nothing"): "no such folder",
        str(tmp_path / "empty"): "holds no causal language model that transformers can read",
        str(narrow): "has 100 symbols, the data 256; for a base with its own tokenizer give data.tokenizer=",
    }
    for folder, message in cases.items():
        with pytest.raises(ValueError, match=message) as raised:
            causal_lm(inputs=(12,), outputs=256, base=folder)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="has a context of 128 symbols, a passage has 200"):
        causal_lm(inputs=(200,), outputs=256, base=str(gpt2))


@pytest.mark.real_data("udhr")
def test_the_experiment_reports_all_that_it_compares(gpt2, tmp_path, capsys):
    small = ["data.length=16", "data.shots=2", "data.queries=2", "algorithm.steps=1", "train.meta_steps=2"]
    small += ["train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=2", "eval.steps=1", "--device", "cpu"]
    out = tmp_path / "out"
    assert main(["run", "lora", f"model.base={gpt2}", *small, "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())["results"]
    names = list(results)
    assert names[:2] == ["lslr", "lslr, with the support set as a prompt"]
    assert names[2].startswith("fine-tuned by ")
    assert names[3] == f"{names[2]}, with the support set as a prompt"
    assert all(math.isfinite(row["mean"]) for column in results.values() for row in column)
    learner = fmaml.load(out)  # the adapters alone are in the file, the base is read from its folder
    assert all(".lora_" in name for name in learner.theta["params"])


@pytest.mark.real_data("udhr")
def test_a_prompt_longer_than_the_context_is_refused_before_training(gpt2, tmp_path, capsys):
    assert main(["run", "lora", f"model.base={gpt2}", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "data.in_context" in error
    assert "Traceback" not in error
