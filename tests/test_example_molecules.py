"""The molecules of `examples/molecules/`: on made assays and on small files, trained for seconds."""

import gzip
import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from fmaml.cli.main import main

TOP = Path(__file__).parent.parent
CPU = torch.device("cpu")
SMALL = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=20", "model.hidden=[8, 8]"]


@pytest.fixture
def example(monkeypatch):
    """The modules by name, with the checkout as the current folder."""
    monkeypatch.chdir(TOP)
    monkeypatch.syspath_prepend(str(TOP))
    return lambda name: import_module(f"examples.molecules.{name}")


@pytest.fixture
def folder(tmp_path, example) -> Path:
    """Packed assays of 40 molecules, the last of 30; the last bit and the second descriptor tell the active ones."""
    noise = np.random.default_rng(0)
    for part, count in (("train", 5), ("valid", 2), ("test", 3)):
        (tmp_path / part).mkdir()
        for assay in range(count):
            with gzip.open(tmp_path / part / f"CHEMBL{100 + assay}.jsonl.gz", "wt", encoding="utf-8") as file:
                for i in range(30 if (part, assay) == ("test", 2) else 40):
                    active = i % 10 < 3
                    bits = [*noise.integers(0, 3, 15).tolist(), int(active)]
                    row = {"Property": str(float(active)), "fingerprints": bits, "descriptors": [0.5, 7.0 * active]}
                    file.write(json.dumps({"SMILES": "C", **row, "graph": {}}) + "\n")
    example("prepare").main(tmp_path, tmp_path / "packed")
    return tmp_path / "packed"


def average_precision(scores: list[float], truth: list[int]) -> float:
    """The mean, over the active ones, of the share of active ones among those with their score or a better one."""
    ranked = [y for _, y in sorted(zip(scores, truth, strict=True), reverse=True)]
    return sum(sum(ranked[: k + 1]) / (k + 1) for k, y in enumerate(ranked) if y) / sum(ranked)


def test_it_is_trained_without_data_and_compared(example, tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert main(["run", "examples/molecules/molecules.yaml", *SMALL, "--device", "cpu", "--out", str(run)]) == 0
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))["results"]
    assert results["untrained prototypes"][0]["mean"] > 0.2
    compare = example("compare")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "SIZES", (16, 32))
    monkeypatch.setattr(compare, "DRAWS", 1)
    header = "TASK_ID,fraction_positive_test,16_train,32_train,64_train"
    for file in example("published").PUBLISHED:
        rows = ["CHEMBL240,0.5,0.6+/-0.1,0.75+/-0.1,", "CHEMBL241,0.5,0.8+/-0.1,0.85+/-0.1,", "CHEMBL7,0.1,0.9+/-0.1,,"]
        text = "\n".join([header, *rows])
        Path(f"{file}_summary.csv").write_text(text, encoding="utf-8")
    compare.main(run, tmp_path)
    rows = {(row["name"], row["shots"]): row for row in json.loads(Path("molecules.json").read_text(encoding="utf-8"))}
    assert Path("molecules.png").stat().st_size > 10_000
    assert rows["kNN", 16]["mean"] == pytest.approx(0.2)  # assay 7 is not tested
    assert rows["kNN", 16]["assays"] == 2
    assert rows["kNN", 32]["mean"] == pytest.approx(0.3)
    trained, untrained = rows[compare.OURS, 16], rows["untrained prototypes", 16]
    assert trained["lead"]["mean"] == 0
    assert untrained["lead"]["mean"] == pytest.approx(trained["mean"] - untrained["mean"])
    assert untrained["mean"] < rows["untrained prototypes", 32]["mean"]


def test_average_precision_by_hand(example):
    gain = example("molecules").precision_gain
    noise = torch.Generator().manual_seed(0)
    logits, y = torch.randn(30, 2, generator=noise), torch.randint(2, (30,), generator=noise)
    scores = (logits[:, 1] - logits[:, 0]).tolist()
    expected = average_precision(scores, y.tolist()) - float(y.float().mean())
    assert gain(logits, y) == pytest.approx(expected, abs=1e-6)
    padded = torch.cat([y, torch.full((5,), -1)])
    assert gain(torch.cat([logits, 99 * torch.ones(5, 2)]), padded) == pytest.approx(expected, abs=1e-6)
    both = torch.func.vmap(gain)(torch.stack([logits, -logits]), torch.stack([y, y]))
    worst = average_precision([-s for s in scores], y.tolist()) - float(y.float().mean())
    assert both.tolist() == pytest.approx([expected, worst], abs=1e-6)


def test_files_become_stratified_tasks(example, folder):
    """3 of 10 molecules are active; no molecule twice; bits and ranks keep their molecule; the rest is padding."""
    module = example("molecules")
    source = module.molecules(seed=0, device=CPU, root=str(folder), shots=10, queries=40, train_queries=20)
    assert source.about["names"] == ["CHEMBL100", "CHEMBL101", "CHEMBL102"]
    assert source.inputs == (18,)
    (x, y), (asked, truth) = source.sample("test", 0, range(6))  # each assay with two support sets
    assert y.sum(1).tolist() == [3] * 6
    assert (truth == 1).sum(1).tolist() == [9, 9, 6] * 2
    assert (truth == -1).sum(1).tolist() == [0, 0, 10] * 2
    for part, label in ((x, y), (asked, truth)):
        real = label >= 0
        assert torch.equal(part[..., 15][real], label[real].float())  # the last bit
        assert (part[..., 17][real & (label == 1)] > part[..., 17][real & (label == 0)].max()).all()
    assert not torch.equal(x[0], x[3])  # another draw of the same assay
    whole = torch.cat([x, asked[:, :30]], 1)[..., :16]
    assert torch.equal(whole[0].sum(0), whole[3].sum(0))
    train = source.sample("train", 0, range(8))
    assert train.query.y.shape == (8, 20)
    assert (train.query.y >= 0).all()


def test_ranks_are_the_middle_of_equal_ones(example):
    grid = np.array([[0.0], [1], [1], [2]])
    ranked = example("prepare").ranks(np.array([[-1.0], [0], [1], [2], [9]]), grid)[:, 0]
    assert ranked.tolist() == [-127, round(127 * -0.75), 0, round(127 * 0.75), 127]


def test_missing_files_and_large_support_sets_are_refused(example, folder, tmp_path):
    molecules = example("molecules").molecules
    with pytest.raises(ValueError, match=r"has no train\.npz"):
        molecules(seed=0, device=CPU, root=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="no assay has 56 molecules"):
        molecules(seed=0, device=CPU, root=str(folder), shots=40, train_shots=10)
