"""A run goes on from each of its steps, with the settings it had, and says what else may not be."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from harness import (
    SHORT,
    STEPS,
    bare,
    config,
    fingerprint,
    finish,
    fork,
    in_place,
    parameters,
    run,
    uninterrupted,
    wait,
)
from PIL import Image

import fmaml.training.run_experiment
from fmaml.checkpoints import checkpoint_store, resume_compatibility
from fmaml.checkpoints.checkpoint_format import decode_checkpoint
from fmaml.checkpoints.checkpoint_store import CheckpointStore, checkpoint_files
from fmaml.checkpoints.progress import Progress, StepForm
from fmaml.checkpoints.resume_compatibility import PROBE_TASKS, collect_facts, digest_of_split
from fmaml.cli.main import main
from fmaml.config.build import build, call_by_name
from fmaml.training import step as step_module
from fmaml.training.resume_and_train import first_progress
from fmaml.tree import leaves, map_leaves
from fmaml.types import MetaState


@pytest.fixture(scope="module")
def history(tmp_path_factory) -> Path:
    """A run that has kept all its checkpoints."""
    out = tmp_path_factory.mktemp("history") / "out"

    def work() -> int:
        checkpoint_store.KEPT_CHECKPOINTS = 1000
        return run(out)

    assert wait(fork(work)) == 0
    assert len(checkpoint_files(out / "checkpoints")) == STEPS + 1
    return out


def as_of(history: Path, step: int, out: Path) -> Path:
    """The folder as it would be, had the run been killed when it had logged more than it had saved."""
    shutil.copytree(history, out, ignore=shutil.ignore_patterns("*.safetensors"))
    for path in checkpoint_files(out / "checkpoints"):
        if path.stem != f"step-{step:09d}":
            path.unlink()
    return out


AT_ONCE = {*range(13), *range(19, 22), *range(STEPS - 2, STEPS + 1)}  # around validations, rows and both ends
EVERY_STEP = [n if n in AT_ONCE else pytest.param(n, marks=pytest.mark.slow) for n in range(STEPS + 1)]


@pytest.mark.parametrize("step", EVERY_STEP)
def test_from_each_step_to_the_same_bits(history, tmp_path, step):
    out = as_of(history, step, tmp_path / "out")
    assert finish(out) == 0
    assert fingerprint(out) == uninterrupted()


def test_every_part_of_the_progress_comes_back(tmp_path):
    experiment = build(config(), torch.device("cpu"))
    start = first_progress(experiment, experiment.model.init(torch.Generator().manual_seed(0)))
    parts = [
        map_leaves(lambda leaf: leaf + torch.randn(leaf.shape), part) for part in (*start.state[:2], start.best_theta)
    ]
    form = StepForm(compiled=True, chunk_size=2)
    state = MetaState(parts[0], parts[1], 7)
    kept = Progress(state, -0.25, parts[2], validated=5, skipped=2, step_form=form, without_best=3)
    known = collect_facts(config(), experiment.source, torch.device("cpu"))
    store = CheckpointStore(tmp_path, known, in_place)
    store.checkpoints.mkdir()
    store.save(kept)
    back = CheckpointStore(tmp_path, known, in_place).restore(start, print)
    assert back[3:] == kept[3:]
    assert (back.state.step, back.best) == (7, -0.25)
    pairs = zip(leaves([*back.state[:2], back.best_theta]), leaves(parts), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_another_interval_of_saving_is_the_same_run(tmp_path):
    assert finish(tmp_path / "out", "train.save_every=7") == 0
    assert fingerprint(tmp_path / "out") == uninterrupted()


def test_the_baseline_goes_on_as_well(tmp_path):
    """Killed in its second training, by a step that is never done."""
    with_baseline = ["train.baseline=true", "train.meta_steps=12"]
    assert finish(tmp_path / "whole", *with_baseline) == 0
    out = tmp_path / "out"

    def work() -> int:
        saves = checkpoint_store.CheckpointStore.save

        def dying(self, progress):
            saves(self, progress)
            if self.folder.name == "joint" and progress.state.step == 5:
                raise KeyboardInterrupt

        checkpoint_store.CheckpointStore.save = dying
        return run(out, *with_baseline)

    assert wait(fork(work)) == 99
    assert finish(out, *with_baseline) == 0
    for part in (".", "joint"):
        assert fingerprint(out / part) == fingerprint(tmp_path / "whole" / part)


REFUSED = {
    "seed=1": "seed: saved with 0, given 1",
    "model.hidden=[9]": "model.hidden: saved with [8], given [9]",
    "algorithm.inner_lr=0.02": "algorithm.inner_lr: saved with 0.01, given 0.02",
    "optimizer.lr=0.02": "optimizer.lr: saved with 0.01, given 0.02",
    "optimizer={name: sgd, lr: 0.01}": "optimizer.name: saved with adam, given sgd",
    "data.shots=4": "data.shots: saved with 3, given 4",
    "train.meta_batch=4": "train.meta_batch: saved with 3, given 4",
    "train.clip=1": "train.clip: saved with null, given 1",
    "train.schedule=constant": "train.schedule: saved with cosine, given constant",
    "train.meta_steps=50": "train.meta_steps: saved with 40, given 50",
    "train.validate_tasks=7": "train.validate_tasks: saved with 6, given 7",
    "train.batching=loop": "train.batching: saved with auto, given loop",
    "train.chunk_size=2": "train.chunk_size: saved with null, given 2",
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_changed_setting_is_named_and_nothing_is_touched(history, tmp_path, override):
    out = as_of(history, 20, tmp_path / "out")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert wait(fork(lambda: run(out, override), None, tmp_path / "said")) == 2
    said = (tmp_path / "said").read_text()
    assert REFUSED[override] in said
    assert "data.train: " not in said  # the digest of data that another setting of theirs has changed
    assert "these may change: train.meta_steps (if train.schedule is constant), the device" in said
    assert {path: path.read_bytes() for path in before if path.name != ".lock"} == {
        path: content for path, content in before.items() if path.name != ".lock"
    }


@pytest.mark.parametrize(
    "override", ["train.log_every=1", "train.validate_every=7", "train.save_every=9", "eval.tasks=3"]
)
def test_what_may_change_does_not_change_what_is_learnt(history, tmp_path, override):
    out = as_of(history, 20, tmp_path / "out")
    assert finish(out, override) == 0
    assert parameters(out / "last.safetensors") == parameters(history / "last.safetensors")
    assert override.split("=")[0].split(".")[1] in (out / "config.yaml").read_text()


def test_a_longer_run_with_a_constant_rate_is_the_longer_run(tmp_path):
    constant = ["train.schedule=constant", "train.log_every=1"]
    assert finish(tmp_path / "long", *constant, "train.meta_steps=20") == 0
    assert finish(tmp_path / "out", *constant, "train.meta_steps=10") == 0
    assert finish(tmp_path / "out", *constant, "train.meta_steps=20") == 0
    one, two = (parameters(tmp_path / name / "last.safetensors") for name in ("long", "out"))
    assert one == two
    assert wait(fork(lambda: run(tmp_path / "out", *constant, "train.meta_steps=5"))) == 2


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (
            lambda: setattr(resume_compatibility, "__version__", "9.9"),
            "versions.fmaml: saved with 0.1.0, given 9.9",
        ),
        (
            lambda: setattr(resume_compatibility, "digest_of_split", lambda source, split: f"other {split}"),
            ", given other val",
        ),
    ],
)
def test_other_versions_and_other_data_are_named(history, tmp_path, patch, said):
    out = as_of(history, 20, tmp_path / "out")

    def work() -> int:
        patch()
        return run(out)

    assert wait(fork(work, None, tmp_path / "said")) == 2
    assert said in (tmp_path / "said").read_text()


def test_the_digest_of_the_data_tells_sources_apart():
    sources = [call_by_name("data", config(*more)["data"], seed=0, device="cpu") for more in ([], ["data.shots=4"], [])]
    one, two, three = (digest_of_split(source, "train") for source in sources)
    assert one == three != two


def put_images(root: Path) -> None:
    """Eight classes of 30 images of 8x8, each of one grey of its own; train has the first four."""
    for i in range(8):
        split = "train" if i < 4 else "val" if i < 6 else "test"
        (root / split / f"class{i}").mkdir(parents=True)
        for j in range(30):
            Image.new("L", (8, 8), 30 * i + j).save(root / split / f"class{i}" / f"{j:02}.png")


def test_one_pixel_of_one_image_that_no_first_task_has_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    put_images(root := tmp_path / "images")
    settings = ["data={name: folder, size: 8, channels: 1, ways: 2, shots: 1, queries: 1}", f"data.root={root}"]
    settings += ["model={name: mlp, hidden: [4]}", "algorithm.steps=1", "train.meta_steps=2"]
    assert finish(out := tmp_path / "out", *settings) == 0
    assert finish(out, *settings) == 0, "the same data is taken again"

    source = call_by_name("data", config(*settings)["data"], seed=0, device=torch.device("cpu"))
    first = source.sample("train", 0, range(PROBE_TASKS))
    seen = {round(255 * grey) for batch in first for grey in batch.x.unique().tolist()}
    grey = next(grey for grey in range(120) if grey not in seen)
    path = root / "train" / f"class{grey // 30}" / f"{grey % 30:02}.png"
    with Image.open(path) as image:
        image.putpixel((3, 5), grey + 1)
        image.save(path)

    assert wait(fork(lambda: run(out, *settings), None, tmp_path / "said")) == 2
    said = (tmp_path / "said").read_text()
    assert "data.train: saved with " in said
    assert "data.val" not in said
    assert "data.test" not in said


def test_another_device_is_said_and_allowed(history, tmp_path):
    out = as_of(history, 20, tmp_path / "out")

    def work() -> int:
        facts = fmaml.training.run_experiment.collect_facts
        fmaml.training.run_experiment.collect_facts = lambda *args: (
            facts(*args) | {"machine": {"device": "cuda", "threads": 1}}
        )
        return run(out)

    assert wait(fork(work, None, tmp_path / "said")) == 0
    assert (
        "machine.device was cpu and is cuda: results may now differ in the last bits" in (tmp_path / "said").read_text()
    )


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (
            lambda: setattr(torch.backends.cpu, "get_cpu_capability", lambda: "OTHER"),
            f"machine.cpu_capability was {torch.backends.cpu.get_cpu_capability()} and is OTHER: results may",
        ),
        (
            lambda: setattr(resume_compatibility, "hardware", lambda device: "another CPU"),
            " and is another CPU: results may now differ in the last bits",
        ),
        (
            lambda: setattr(resume_compatibility, "kernels_in_use", lambda: "none"),
            " and is none: results may now differ in the last bits",
        ),
        (
            lambda: setattr(torch, "get_num_threads", lambda: 3),
            "machine.threads was 1 and is 3: results may now differ in the last bits",
        ),
    ],
)
def test_another_cpu_is_said_and_allowed(history, tmp_path, patch, said):
    out = as_of(history, 38, tmp_path / "out")

    def work() -> int:
        patch()
        return run(out)

    assert wait(fork(work, None, tmp_path / "said")) == 0
    assert said in (tmp_path / "said").read_text()


def test_the_same_machine_is_not_remarked_on(history, tmp_path):
    out = as_of(history, 38, tmp_path / "out")
    assert wait(fork(lambda: run(out), None, tmp_path / "said")) == 0
    assert "differ" not in (tmp_path / "said").read_text()


# Compiled or not, which changes rounding. Compiling takes long: a stand-in rounds its results to fewer bits

NO_COMPILER = "train.compile: no compiler; the steps run uncompiled"
LESS_PRECISE = 2.0**12


def stand_in(step_fn, algorithm, notify):
    def step(state, tasks, chunk_size=None):
        new, metrics = step_fn(state, tasks, chunk_size=chunk_size)
        return new._replace(
            theta=map_leaves(lambda leaf: (leaf * LESS_PRECISE).round() / LESS_PRECISE, new.theta)
        ), metrics

    return step


def without_compiler(step_fn, algorithm, notify):
    notify(NO_COMPILER)
    return step_fn


def ended(out: Path, steps: int, *overrides: str, compiler=stand_in, dies_at: int | None = None) -> str:
    """What a run of so many steps says that compiles if it has 15 or more; it may die once it has saved a step."""
    said = out.with_suffix(".said")
    said.unlink(missing_ok=True)

    def work() -> int:
        step_module.LONG_RUN, step_module.compiled = 15, compiler
        save = CheckpointStore.save

        def dying(self, progress):
            save(self, progress)
            if progress.state.step == dies_at:
                raise KeyboardInterrupt

        checkpoint_store.CheckpointStore.save = dying
        return run(out, "train.schedule=constant", f"train.meta_steps={steps}", *overrides)

    assert wait(fork(work, None, said)) == (0 if dies_at is None else 99), said.read_text()
    return said.read_text()


def learnt(out: Path) -> bytes:
    return parameters(out / "last.safetensors")


@pytest.fixture(scope="module")
def lengths(tmp_path_factory) -> dict[tuple[bool, int], bytes]:
    """What runs of 12 and 20 steps learn, compiled and not."""
    folder, found = tmp_path_factory.mktemp("lengths"), {}
    for compiled in (False, True):
        for steps in (12, 20):
            out = folder / f"{compiled}{steps}"
            ended(out, steps, f"train.compile={str(compiled).lower()}")
            found[compiled, steps] = learnt(out)
    assert len(set(found.values())) == 4
    return found


def test_a_run_that_becomes_long_stays_uncompiled(tmp_path, lengths):
    out = tmp_path / "out"
    ended(out, 12)
    assert learnt(out) == lengths[False, 12]
    assert "train.compile: the steps stay uncompiled, as before the interruption" in ended(out, 20)
    assert learnt(out) == lengths[False, 20]


def test_a_run_that_becomes_short_stays_compiled(tmp_path, lengths):
    out = tmp_path / "out"
    ended(out, 20, dies_at=8)
    assert "uncompiled" not in ended(out, 12)
    assert learnt(out) == lengths[True, 12]


def test_a_compiler_that_is_gone_is_said_and_one_that_comes_back_changes_nothing(tmp_path, lengths):
    out = tmp_path / "out"
    ended(out, 20, dies_at=8)
    said = ended(out, 20, compiler=without_compiler, dies_at=14)
    assert NO_COMPILER in said
    assert "the steps were compiled before and are not now: results may now differ in the last bits" in said
    assert "train.compile: the steps stay uncompiled" in ended(out, 20)
    assert learnt(out) not in lengths.values()


@pytest.mark.parametrize("compile_it", ["auto", "true"])
def test_a_run_that_began_without_a_compiler_goes_on_without(tmp_path, lengths, compile_it):
    out = tmp_path / "out"
    said = ended(out, 20, f"train.compile={compile_it}", compiler=without_compiler, dies_at=8)
    assert "were compiled" not in said
    ended(out, 20, f"train.compile={compile_it}")
    assert learnt(out) == lengths[False, 20]


@pytest.mark.slow
def test_a_run_that_is_really_compiled_goes_on_to_the_same_bits(tmp_path):
    real = step_module.compiled
    for out, dies_at in ((tmp_path / "whole", None), (tmp_path / "out", 8), (tmp_path / "out", None)):
        assert "train.compile" not in ended(out, 16, compiler=real, dies_at=dies_at)
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "whole")


def test_tasks_at_a_time_that_memory_allowed_stay_the_same(tmp_path):
    """A machine with more memory goes on with as few, since their number changes rounding."""
    out, meta_step = tmp_path / "out", step_module.meta_step

    def work() -> int:
        def short_of_memory(*args, chunk_size, **more):
            if chunk_size is None:
                raise MemoryError
            return meta_step(*args, chunk_size=chunk_size, **more)

        step_module.meta_step = short_of_memory
        return run(out, "train.schedule=constant", SHORT)

    assert wait(fork(work)) == 0
    assert finish(out, "train.schedule=constant", "train.meta_steps=20") == 0
    _, facts = decode_checkpoint(checkpoint_files(out / "checkpoints")[0].read_bytes())
    assert facts["step_form"] == {"compiled": False, "chunk_size": 2}
    few = ["train.schedule=constant", "train.chunk_size=2"]
    assert finish(tmp_path / "few", *few, "train.meta_steps=20") == 0
    assert learnt(out) == learnt(tmp_path / "few")


# From the command line


def test_fmaml_resume_goes_on_in_the_folder(history, tmp_path):
    out = as_of(history, 13, tmp_path / "out")

    def work() -> int:
        bare(None)
        return main(["resume", str(out)])

    assert wait(fork(work, None, tmp_path / "said")) == 0, (tmp_path / "said").read_text()
    assert fingerprint(out) == uninterrupted()


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["resume", str(tmp_path)]) == 2
    assert "holds no config.yaml" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["run", "sinusoid", "--resume", "--out", str(tmp_path), "--device", "cpu"]) == 2
    assert "no run to continue" in capsys.readouterr().err
    assert main(["run", "sinusoid", "--resume"]) == 2
    assert "--out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_used_folder_says_how_to_go_on(history, tmp_path, capsys):
    out = as_of(history, 13, tmp_path / "out")
    assert main(["run", "sinusoid", "--out", str(out), "--device", "cpu"]) == 2
    assert "add --resume to continue it" in " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_says_what_it_depends_on(history):
    tensors, facts = decode_checkpoint(checkpoint_files(history / "checkpoints")[0].read_bytes())
    assert {name.partition(".")[0] for name in tensors} == {"theta", "optimizer", "best"}
    assert facts["config"] == json.loads(json.dumps(config()))
    assert facts["seed"] == 0
    assert facts["versions"].keys() == {"fmaml", "torch"}
    assert (facts["step"], facts["validated"], facts["skipped"]) == (STEPS, STEPS, 0)
