"""A disk that fails at any write leaves the checkpoint before it, no litter, and one line that says so."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import SHORT, fingerprint, finish, fork, litter, run, shimmed, steps, uninterrupted, wait

from fmaml.checkpoints import checkpoint_store
from fmaml.checkpoints.checkpoint_format import decode_checkpoint
from fmaml.checkpoints.checkpoint_store import checkpoint_files
from fmaml.checkpoints.run_folder import run_folder
from fmaml.data.source import ACCURACY
from fmaml.errors import Error
from fmaml.files import atomic as atomic_files
from fmaml.report.read_run import read_line

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)
WRITING = ("open", "write", "fsync", "close", "replace")


def failing(out: Path, operation: str, hit: int, number: int) -> int:
    """In a child: the n-th such operation, and all after it, fail; a write leaves a part behind."""
    left = hit

    def act(reached: str, args: tuple) -> None:
        nonlocal left
        if reached == f"before {operation}":
            left -= 1
            if left <= 0:
                if operation == "write":
                    os.write(args[0], args[1][: len(args[1]) // 3])
                raise OSError(number, os.strerror(number), str(args[0]))

    with shimmed(act):
        return run(out, SHORT)


@pytest.mark.parametrize("trials", [len(ERRORS), pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("operation", WRITING)
def test_a_failing_operation(tmp_path, operation, trials):
    draw = random.Random(operation)
    for trial in range(trials):
        out, said = tmp_path / str(trial), tmp_path / f"{trial}.said"
        number = ERRORS[trial % len(ERRORS)]
        hit = draw.randrange(1, 12)
        code = wait(fork(lambda out=out, hit=hit, n=number: failing(out, operation, hit, n), None, said))
        text = said.read_text()
        assert code == 1, text
        assert os.strerror(number) in text
        assert "crashed" not in text
        if "cannot save a checkpoint" in text:
            assert " it needs 0.0 MB, " in text
            assert " MB are free" in text
            assert ("Make room" in text) == (number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
        for path in checkpoint_files(out / "checkpoints"):
            decode_checkpoint(path.read_bytes())
        assert not litter(out), (hit, os.strerror(number))
        if trial < 5:  # each error once
            assert finish(out, SHORT) == 0
            assert fingerprint(out) == uninterrupted(SHORT)


def test_what_the_kernel_refuses_to_write(tmp_path):
    """A real limit on the size of a file, at which real writes fall short and then fail."""
    out, said = tmp_path / "out", tmp_path / "said"
    assert finish(out, SHORT, "train.save_every=5") == 0
    kept = steps(out)
    size = checkpoint_files(out / "checkpoints")[0].stat().st_size

    def work() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
        return run(out, "train.meta_steps=10", "train.log_every=1")

    (out / "checkpoints" / f"step-{kept[0]:09d}.ckpt").unlink()
    assert wait(fork(work, None, said)) == 1
    assert "File too large" in said.read_text()
    assert steps(out) == kept[1:]
    assert not litter(out)


def test_metrics_that_cannot_be_written(tmp_path):
    out, said = tmp_path / "out", tmp_path / "said"

    def work() -> int:
        from fmaml.training.log import RunLog

        record = RunLog.record

        def full(self, kind, step, **numbers):
            if step == 6:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")
            record(self, kind, step, **numbers)

        RunLog.record = full
        return run(out, SHORT)

    assert wait(fork(work, None, said)) == 1
    text = said.read_text()
    assert "metrics.jsonl: No space left on device; " in text
    assert f"then `fmaml resume {out}`" in text
    assert steps(out)[0] == 5
    assert finish(out, SHORT) == 0
    assert fingerprint(out) == uninterrupted(SHORT)


def test_too_little_room_is_said_before_training(tmp_path):
    from types import SimpleNamespace

    def work() -> int:
        shutil.disk_usage = lambda folder: SimpleNamespace(free=5000)
        return run(tmp_path / "out")

    assert wait(fork(work, None, tmp_path / "said")) == 1
    said = (tmp_path / "said").read_text()
    assert "a run needs " in said
    assert "0.0 MB are free; make room" in said
    assert checkpoint_files(tmp_path / "out/checkpoints") == []


FULL_DISK = """
import os, shutil, sys
from pathlib import Path
sys.path[:0] = [{here!r}, {root!r}]
import fmaml.checkpoints.checkpoint_store, harness
from fmaml.errors import exit_code, Error

disk, save = Path(sys.argv[1]), fmaml.checkpoints.checkpoint_store.CheckpointStore.save
harness.bare(None)

def filling(self, progress):
    if progress.state.step == 5:
        (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free // 4096 * 4096 - 40_000))
    save(self, progress)

fmaml.checkpoints.checkpoint_store.CheckpointStore.save = filling
try:
    harness.run(disk / "out", "model.hidden=[100, 100]", harness.SHORT)
except Error as error:
    print("refused", exit_code(error), error)
print("full", harness.steps(disk / "out"), harness.litter(disk))
(disk / "ballast").unlink()
fmaml.checkpoints.checkpoint_store.CheckpointStore.save = save
harness.run(disk / "out", "model.hidden=[100, 100]", harness.SHORT)
print("room", harness.steps(disk / "out"), harness.litter(disk))
"""


def test_a_disk_that_is_really_full(tmp_path):
    """Memory as a disk, of its own and small: full at the sixth checkpoint, and then with room again."""
    mount = f"mount -t tmpfs -o size=2m none '{tmp_path}'"
    probe = ["unshare", "-Urm", "sh", "-c", mount]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no user mount a file system of his own")
    here = Path(__file__).parent
    script = FULL_DISK.format(here=str(here), root=str(Path(atomic_files.__file__).parent.parent))
    command = f"{mount} && exec '{sys.executable}' -c \"$SCRIPT\" '{tmp_path}'"
    ended = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "SCRIPT": script},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "(No space left on device): it needs 0.2 MB, 0.0 MB are free; step 4 is saved. Make room" in ended.stdout
    assert "full [4, 3] []" in ended.stdout
    assert "room [10, 9] []" in ended.stdout


# Places that are no folder to write in


@pytest.mark.parametrize("place", ["file", "below a file", "loop", "name too long"])
def test_a_folder_that_cannot_be_is_refused_before_training(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    out = {
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "out",
        "loop": tmp_path / "loop" / "out",
        "name too long": tmp_path / ("x" * 300),
    }[place]
    assert wait(fork(lambda: run(out, resume=False), None, tmp_path / "said")) == 2
    assert "name a folder that can be written" in (tmp_path / "said").read_text()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_may_not_be_written(tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)

    def work() -> int:
        if os.geteuid() == 0:  # who may write anywhere
            os.setuid(65534)
        with run_folder(str(tmp_path / "out"), "some", resume=False):
            return 0

    assert wait(fork(work, None, tmp_path / "said")) == 2
    assert "Permission denied; name a folder that can be written" in (tmp_path / "said").read_text()


@pytest.mark.parametrize("name", ["with space", "ümlaut", "new\nline", "-dash", "a/b/c"])
def test_names_of_folders_are_taken_as_they_are(tmp_path, name):
    assert finish(tmp_path / name, SHORT) == 0
    assert fingerprint(tmp_path / name) == uninterrupted(SHORT)


def test_a_folder_that_a_file_replaces_under_the_run_is_said(tmp_path):
    out, said = tmp_path / "out", tmp_path / "said"

    def work() -> int:
        import fmaml.checkpoints.checkpoint_store

        save = fmaml.checkpoints.checkpoint_store.CheckpointStore.save

        def removing(self, progress):
            if progress.state.step == 5:
                shutil.rmtree(out)
                out.write_text("a file in its place")
            save(self, progress)

        fmaml.checkpoints.checkpoint_store.CheckpointStore.save = removing
        return run(out, SHORT)

    assert wait(fork(work, None, said)) == 1
    assert f"{out}: moved or removed" in said.read_text()
    assert out.read_text() == "a file in its place"


def test_a_result_that_cannot_be_written_leaves_the_one_before_it(tmp_path, monkeypatch):
    """results.json and the pictures come whole or not at all."""
    from matplotlib import pyplot as plt

    from fmaml.files.figures import save_figure
    from fmaml.report.results import write_results

    for name in ("results.json", "task.png"):
        (tmp_path / name).write_text("before")

    def full(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    for write in (
        lambda: write_results(tmp_path / "results.json", {}, ACCURACY, {}),
        lambda: save_figure(plt.figure(), tmp_path / "task.png"),
    ):
        with pytest.raises(OSError, match="no space"):
            write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "task.png"]
    assert all((tmp_path / name).read_text() == "before" for name in ("results.json", "task.png"))


def test_a_name_that_is_no_utf8_does_not_stop_a_run_after_training(tmp_path):
    from fmaml.report.results import write_results

    name = os.fsdecode(b"caf\xe9")
    write_results(tmp_path / "results.json", {}, ACCURACY, {"files": [name]})
    assert json.loads((tmp_path / "results.json").read_text())["files"] == [name]


def test_a_log_that_the_disk_cannot_read_is_named(tmp_path):
    class Failing:
        def readline(self, limit):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(Error, match=r"metrics.jsonl: cannot be read: Input/output error; repair the disk"):
        read_line(Failing(), tmp_path / "metrics.jsonl")  # pyright: ignore[reportArgumentType]


def test_a_clock_that_goes_backwards_leaves_a_checkpoint_that_is_used(tmp_path):
    out = tmp_path / "out"

    def work() -> int:
        times = iter(range(10**6, 0, -1))
        checkpoint_store.time.perf_counter = lambda: float(next(times))
        return run(out, SHORT)

    assert wait(fork(work, None, tmp_path / "said")) == 0, (tmp_path / "said").read_text()
    assert finish(out, SHORT) == 0
    assert not list(out.rglob("*.damaged"))
    assert fingerprint(out) == uninterrupted(SHORT)
