"""The promises taken out of the source, one at a time: each time a test of this folder must fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fmaml

ROOT = Path(fmaml.__file__).parent.parent
HERE = Path(__file__).parent
MUTANTS = {  # what is left out: file, text, what stands there instead, the test that must fail
    "sync of the file": (
        "files/atomic.py",
        "os.write(handle, rest) :]\n        os.fsync(handle)",
        "os.write(handle, rest) :]",
        "test_power.py",
    ),
    "sync of the folder": (
        "files/atomic.py",
        "        raise\n    sync_folder(path.parent)",
        "        raise",
        "test_power.py",
    ),
    "rename": (
        "files/atomic.py",
        "_write_synced(temporary, parts)\n        os.replace(temporary, path)",
        "path.write_bytes(parts[0])",
        "test_power.py",
    ),
    "removing a temporary file": (
        "files/atomic.py",
        "            os.unlink(temporary)",
        "            pass",
        "test_disk.py",
    ),
    "sweeping after a kill": (
        "checkpoints/checkpoint_store.py",
        "        delete_temporary_files(self.checkpoints)\n",
        "",
        "test_kill.py",
    ),
    "digest": ("checkpoints/checkpoint_format.py", "if head != MAGIC", "if None and head != MAGIC", "test_damage.py"),
    "the one before": (
        "checkpoints/checkpoint_store.py",
        "                continue\n",
        "                raise\n",
        "test_damage.py",
    ),
    "stopping when all are damaged": (
        "checkpoints/checkpoint_store.py",
        "        if files or _has_rows(",
        "        if None and (",
        "test_damage.py",
    ),
    "keeping two": ("checkpoints/checkpoint_store.py", "[KEPT_CHECKPOINTS:]", "[1:]", "test_damage.py"),
    "optimizer's state": (
        "checkpoints/checkpoint_store.py",
        'fill(start.state.opt_state, tensors, "optimizer.")',
        "start.state.opt_state",
        "test_resume.py",
    ),
    "best theta": (
        "checkpoints/checkpoint_store.py",
        'best_theta = fill(start.best_theta, tensors, "best.")',
        "best_theta = theta",
        "test_resume.py",
    ),
    "going on without a log": (
        "training/sinks.py",
        "except Exception as error:  # no failure of a logging library",
        "except ZeroDivisionError as error:  # whatever a library raises",
        "test_sinks.py",
    ),
    "dropping what TensorBoard has read": (
        "training/sinks.py",
        ", session_log=begin",
        "",
        "test_sinks.py",
    ),
    "giving a log what was before": (
        "training/resume_and_train.py",
        "    sinks.replay(rows)",
        "    pass",
        "test_sinks.py",
    ),
    "counting validations": (
        "checkpoints/checkpoint_store.py",
        "saved.without_best",
        "0",
        "test_patience.py",
    ),
    "cursor": (
        "training/train.py",
        "range(progress.state.step + 1, settings.meta_steps + 1)",
        "range(1, settings.meta_steps + 1)",
        "test_resume.py",
    ),
    "seed of the tasks": (
        "data/sources/sinusoid.py",
        "task_keys(seed,",
        "task_keys(torch.seed() % 1000,",
        "test_resume.py",
    ),
    "rewinding the metrics": (
        "training/resume_and_train.py",
        "rows = truncate_metrics(path,",
        "rows = [] and truncate_metrics(path,",
        "test_resume.py",
    ),
    "comparing settings": (
        "checkpoints/checkpoint_store.py",
        "        check_compatible(self.folder",
        "        0 and check_compatible(self.folder",
        "test_resume.py",
    ),
    "lock": ("checkpoints/run_lock.py", "lock_descriptor(handle, blocking=False)", "True", "test_stop.py"),
    "exit code": (
        "training/run_experiment.py",
        "            return exit_code(stop)",
        "            return 0",
        "test_stop.py",
    ),
    "stopping in an evaluation": (
        "processes/join.py",
        "        if first + count < len(parts):",
        "        if False:",
        "test_stop.py",
    ),
    "saving when stopped": (
        "training/train.py",
        "        checkpoint(progress)\n        raise",
        "        raise",
        "test_stop.py",
    ),
    "keeping compiled or not": (
        "training/step.py",
        "self.compiled = saved.compiled if may_compile or saved.compiled is not None else False",
        "self.compiled = None if may_compile else False",
        "test_resume.py",
    ),
    "keeping the tasks at a time": (
        "training/step.py",
        "Chunks(saved.chunk_size or settings.chunk_size,",
        "Chunks(settings.chunk_size,",
        "test_resume.py",
    ),
    "naming a compiler that is gone": (
        "training/step.py",
        "        if self.saved.compiled:\n",
        "        if None:\n",
        "test_resume.py",
    ),
    "naming another CPU": (
        "checkpoints/resume_compatibility.py",
        '            "cpu_capability": torch.backends.cpu.get_cpu_capability(),',
        "",
        "test_resume.py",
    ),
    "noticing that the folder was moved": (
        "checkpoints/folder_watch.py",
        "        if not _leads_to(",
        "        if None and not _leads_to(",
        "test_moved.py",
    ),
    "holding the folder": (
        "checkpoints/folder_watch.py",
        "os.path.samestat(os.stat(path), held)",
        "os.path.isdir(path)",
        "test_moved.py",
    ),
    "before a save": (
        "checkpoints/checkpoint_store.py",
        "        self.check_folder()\n        if progress",
        "        if progress",
        "test_moved.py",
    ),
    "before a row of metrics": ("training/log.py", "        self.check_folder()\n", "", "test_moved.py"),
    "before the report": ("training/finish.py", "    store.check_folder()\n", "", "test_moved.py"),
    "making no folder anew": (
        "files/atomic.py",
        "    temporary = path.with_name(",
        "    path.parent.mkdir(parents=True, exist_ok=True)\n    temporary = path.with_name(",
        "test_moved.py",
    ),
    "regular files only": ("files/regular.py", "if not stat.S_ISREG(", "if None and (", "test_hangs.py"),
    "size of a file": ("files/regular.py", "and found.st_size > max_bytes", "and False", "test_hangs.py"),
    "guard": ("training/nan_guard.py", "        elif not verdict:", "        elif None:", "test_finite.py"),
    "finite checkpoints": (
        "checkpoints/checkpoint_store.py",
        "        if not is_finite(",
        "        if None and not is_finite(",
        "test_finite.py",
    ),
    "naming the inner step": (
        "training/nan_guard.py",
        "        if not is_finite(phi):",
        "        if None:",
        "test_finite.py",
    ),
    "refusing YAML tags": (
        "config/strict_yaml.py",
        'if getattr(event, "tag", None)',
        "if None",
        "../config/test_strict_yaml.py",
    ),
    "digest of the data": (
        "checkpoints/resume_compatibility.py",
        "(source.data or {}).get(split)",
        "None",
        "test_resume.py",
    ),
    "digest of an archive": (
        "data/images/cifar100_files.py",
        "_check_md5(path, archive := read_regular(path, _MAX_BYTES))",
        "archive = read_regular(path, _MAX_BYTES)",
        "../data/test_cifar_fs.py",
    ),
    "speed of a download": (
        "data/files/download.py",
        "            if transfer.received - before <",
        "            if None and 0 <",
        "../data/test_download.py",
    ),
    "time of a download": (
        "data/files/download.py",
        "            if time.monotonic() - begun >",
        "            if None and 0 >",
        "../data/test_download.py",
    ),
    "size of a download": (
        "data/files/download.py",
        "                if self.received > _MAX_BYTES:",
        "                if None:",
        "../data/test_download.py",
    ),
    "checksum of a download": ("data/files/download.py", 'f"md5:{md5}"', "None", "../data/test_download.py"),
    "a run that ends with its sweep": (
        "sweep/workers.py",
        "        os.kill(os.getpid(), signal.SIGTERM)",
        "        return",
        "test_sweep.py",
    ),
    "what is finished in a sweep is not run again": (
        "sweep/state.py",
        " if run.state != FINISHED]",
        "]",
        "test_sweep.py",
    ),
    "the exit code of a sweep with a run that failed": (
        "sweep/command.py",
        "    return int(bool(undone))",
        "    return 0",
        "test_sweep.py",
    ),
    "lock of a download": (
        "data/files/download.py",
        "        with folder_lock(path.parent):",
        "        if True:",
        "test_data.py",
    ),
    "lock of the cache": (
        "data/files/cache.py",
        "stack.enter_context(folder_lock(path.parent))",
        "pass",
        "test_data.py",
    ),
}


def occurrences(name: str, text: str) -> int:
    path = ROOT / "fmaml" / name
    return path.read_text(encoding="utf-8").count(text) if path.is_file() else 0


def test_every_text_occurs_once_in_its_file():
    """Else its mutant changes nothing, or too much; and the test that has to fail is there."""
    found = {what: (name, text, occurrences(name, text)) for what, (name, text, _, _) in MUTANTS.items()}
    stale = [f"{what}: {name} has {n} times {text!r}" for what, (name, text, n) in found.items() if n != 1]
    stale += [f"{what}: no {test}" for what, (*_, test) in MUTANTS.items() if not (HERE / test).is_file()]
    assert not stale, "mutants to mend:\n" + "\n".join(stale)


def copied(folder: Path) -> Path:
    """A copy of the package in the folder."""
    for part in ("fmaml", "experiments"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def pytest_on(copy: Path, test: Path) -> subprocess.CompletedProcess[str]:
    """Run a test file with the package that was copied there, not with that of the checkout."""
    words = ["-x", "-q", "-p", "no:cacheprovider", "--tb=line", "-c", str(ROOT / "setup.cfg"), "-o", "pythonpath=tests"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(test)],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_mutant_is_what_runs(tmp_path):
    test = tmp_path / "test_where.py"
    where = copied(tmp_path) / "fmaml" / "__init__.py"
    test.write_text(f"import fmaml\n\ndef test():\n    assert fmaml.__file__ == {str(where)!r}\n", encoding="utf-8")
    ended = pytest_on(tmp_path, test)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("what", MUTANTS)
def test_a_mutant_is_caught(tmp_path, what):
    name, text, instead, test = MUTANTS[what]
    path = copied(tmp_path) / "fmaml" / name
    source = path.read_text(encoding="utf-8")
    path.write_text(source.replace(text, instead), encoding="utf-8")
    ended = pytest_on(tmp_path, HERE / test)
    assert ended.returncode == 1, f"without {what}, {test} still passes:\n{ended.stdout[-2000:]}"
    assert " failed" in ended.stdout or "FAILED" in ended.stdout
