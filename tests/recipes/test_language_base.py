"""The recipe of the small language model, with a few steps: it learns, and what it writes is a base."""

import json
import sys

import children
import pytest
import torch

from fmaml.modules.causal_lm import causal_lm


@pytest.mark.real_data("udhr")
def test_it_learns_and_is_a_base(tmp_path):
    small = ["--width", "32", "--layers", "1", "--context", "48", "--steps", "80", "--batch", "8"]
    command = [sys.executable, "-m", "fmaml.recipes.language_base", "--out", str(tmp_path / "base"), *small]
    ran = children.run(command, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    facts = json.loads((tmp_path / "base" / "recipe.json").read_text())
    assert facts["results"]["bits_a_byte"] < 6  # 8 without any training
    assert facts["results"]["unseen_languages"] < 6.5
    model = causal_lm(inputs=(16,), outputs=256, base=str(tmp_path / "base"))
    assert model.apply(model.init(torch.Generator()), torch.zeros(2, 16, dtype=torch.int64)).shape == (2, 16, 256)
