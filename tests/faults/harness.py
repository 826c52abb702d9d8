"""A small run in a forked child, with something going wrong: what every test of this folder is made of.

The parent has imported torch; a child costs milliseconds. What a child did comes back through a shared page.
"""

import contextlib
import hashlib
import json
import math
import mmap
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import fmaml.checkpoints.checkpoint_store
import fmaml.training.run_experiment
from fmaml import init_state, meta_step
from fmaml.checkpoints.checkpoint_format import decode_checkpoint
from fmaml.checkpoints.checkpoint_store import checkpoint_files
from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.errors import Error, Stopped, exit_code
from fmaml.files import atomic as atomic_files
from fmaml.training.train import scores_before_and_after

STEPS = 40
SMALL = [
    "data.shots=3",
    "data.queries=3",
    "model.hidden=[8]",
    "optimizer={name: adam, lr: 0.01}",
    f"train.meta_steps={STEPS}",
    "train.schedule=cosine",
    "train.meta_batch=3",
    "train.validate_every=10",
    "train.validate_tasks=6",
    "train.log_every=3",
    "train.save_every=1",
    "train.baseline=false",
    "eval.tasks=2",
    "eval.steps=1",
]
SHORT = "train.meta_steps=10"
PATIENCE = 300.0  # seconds a test waits for an event: far more than it takes on a machine that has much else to do
SAVING, SAVES, PRUNES, STEP = range(4)  # cells of the shared page: in a save now?; how many began; prunes; the step


class Page:
    """Counters that a child writes and its parent reads, even when the child was killed."""

    def __init__(self) -> None:
        self.cells = memoryview(mmap.mmap(-1, 4096)).cast("q")

    def __getitem__(self, cell: int) -> int:
        return self.cells[cell]

    def __setitem__(self, cell: int, value: int) -> None:
        self.cells[cell] = value


def config(*overrides: str) -> dict[str, Any]:
    return load_config("sinusoid", [*SMALL, *overrides])


def run(out: Path, *overrides: str, resume: bool = True) -> int:
    """The run as the command line starts it, up to the evaluation of the trained network."""
    return fmaml.training.run_experiment.run(config(*overrides), device="cpu", out=str(out), resume=resume)


@cache
def warm() -> None:
    """Let torch import what it imports at a first step, so that no child has to."""
    experiment = build(config(), torch.device("cpu"))
    theta = fmaml.training.run_experiment.initial_params(experiment, 0, torch.device("cpu"))
    tasks = experiment.source.sample("train", 1, range(2))
    scores_before_and_after(experiment, theta, tasks, 2)
    state = init_state(experiment.algorithm, experiment.optimizer, theta)
    meta_step(experiment.algorithm, experiment.optimizer, state, tasks)


def fork(work: Callable[[], int | None], page: Page | None = None, said: Path | None = None) -> int:
    """A child that does ``work``; its process id. What it prints goes to the file ``said``."""
    warm()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # a test runner may have a second thread, which does nothing
        child = os.fork()
    if child:
        return child
    code = 99
    try:
        handle = os.open(said or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = sys.stderr = os.fdopen(handle, "w", buffering=1, encoding="utf-8")  # a test runner has its own
        bare(page)
        code = work() or 0
    except Error as error:
        os.write(2, f"{error}\n".encode())
        code = exit_code(error)
    except Stopped as stop:
        code = exit_code(stop)
    except BaseException as error:
        os.write(2, f"crashed: {error!r}\n".encode())
    finally:
        os._exit(code)


def bare(page: Page | None) -> None:
    """Leave out what costs time and keeps no promise here; count on the page."""
    fmaml.training.run_experiment.report_results = lambda *_: None
    fmaml.training.run_experiment.environment = lambda place: {"device": str(place)}
    if page is None:
        return
    save, unlink = fmaml.checkpoints.checkpoint_store.CheckpointStore.save, Path.unlink

    def counted(self: Any, progress: Any) -> None:
        page[STEP] = progress.state.step
        page[SAVING], page[SAVES] = 1, page[SAVES] + 1
        save(self, progress)
        page[SAVING] = 0

    def pruned(self: Path, missing_ok: bool = False) -> None:
        page[PRUNES] += self.suffix == ".ckpt"
        unlink(self, missing_ok)

    fmaml.checkpoints.checkpoint_store.CheckpointStore.save, Path.unlink = counted, pruned


def wait_for(event: Callable[[], Any], said: Path | None = None) -> None:
    """Return once ``event`` is true; if it never is, the test fails with what a child has ``said``."""
    end = time.monotonic() + PATIENCE
    while not event():
        assert time.monotonic() < end, said.read_text() if said and said.exists() else "the event did not come"
        time.sleep(0.0005)


def has_ended(child: int) -> bool:
    """Whether a child has ended; it can still be waited for."""
    return bool(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT))


def wait(child: int, processor_limit: float = math.inf) -> int:
    """A child's exit code, minus the signal that killed it; a child that hangs is killed, and fails the test.

    So does one that has used more than ``processor_limit`` seconds of a processor. Unlike a clock, they do not count
    the time in which other processes have it.
    """
    try:
        wait_for(lambda: has_ended(child))
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError(f"a child was not done after {PATIENCE} s") from None
    _, status, usage = os.wait4(child, 0)
    used = usage.ru_utime + usage.ru_stime
    assert used < processor_limit, f"a child used {used} s of a processor"
    return os.waitstatus_to_exitcode(status)


def parameters(path: Path) -> bytes:
    """Names, types, shapes and bytes of a file's tensors: all but the settings, some of which may change."""
    tensors = sorted(load_file(path).items())
    return b"".join(f"{name} {x.dtype} {tuple(x.shape)} ".encode() + x.numpy().tobytes() for name, x in tensors)


def finish(out: Path, *overrides: str) -> int:
    """Go on to the end in a new child."""
    return wait(fork(lambda: run(out, *overrides)))


def fingerprint(folder: Path) -> str:
    """SHA-256 of all that the run has learnt and of all it has logged, clock times left out."""
    tensors, facts = decode_checkpoint(checkpoint_files(folder / "checkpoints")[0].read_bytes())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [{key: row[key] for key in row if key not in ("seconds", "tasks_per_second")} for row in rows]
    facts = {key: facts[key] for key in ("step", "best", "validated", "skipped")}
    total = hashlib.sha256(json.dumps([facts, rows]).encode())
    for name in sorted(tensors):
        total.update(f"{name} {tuple(tensors[name].shape)}".encode() + tensors[name].numpy().tobytes())
    for name in ("best", "last"):
        total.update(parameters(folder / f"{name}.safetensors"))
    return total.hexdigest()


@cache
def uninterrupted(*overrides: str) -> str:
    """The fingerprint of a run that nothing disturbed."""
    with tempfile.TemporaryDirectory() as folder:
        assert finish(Path(folder) / "out", *overrides) == 0
        return fingerprint(Path(folder) / "out")


def steps(folder: Path) -> list[int]:
    """Of the checkpoints, each of which must be whole, the newest first."""
    whole = []
    for path in checkpoint_files(folder / "checkpoints"):
        with contextlib.suppress(FileNotFoundError):  # pruned by a run that goes on
            whole.append(decode_checkpoint(path.read_bytes())[1]["step"])
    return whole


def in_place() -> None:
    """For a store whose folder nobody moves."""


def litter(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*.tmp")]


class Shim:
    """`os` as `fmaml.files.atomic` sees it: calls ``act`` before and after each operation on files."""

    OPERATIONS = ("open", "write", "fsync", "close", "replace", "unlink")

    def __init__(self, act: Callable[[str, tuple], Any]) -> None:
        self.act = act

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.OPERATIONS:
            return real

        def call(*args: Any, **more: Any) -> Any:
            self.act(f"before {name}", args)
            result = real(*args, **more)
            self.act(f"after {name}", args)
            return result

        return call


@contextlib.contextmanager
def shimmed(act: Callable[[str, tuple], Any]):
    atomic_files.os = Shim(act)
    try:
        yield
    finally:
        atomic_files.os = os
