"""The package on a system that lacks what Windows lacks. It stands in for Windows, which no test here has seen."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from children import command

import fmaml
from fmaml.checkpoints.run_lock import LOCK_FILE, locked, refuse_if_held
from fmaml.errors import Error

LIKE_WINDOWS = """
    import asyncio  # torch needs it, and where there are sockets of Unix it reads os.sysconf, from Python 3.12 on
    import os, signal, sys

    modules = "fcntl resource pwd grp termios tty pty syslog curses readline"
    signals = "SIGHUP SIGUSR1 SIGUSR2 SIGKILL SIGALRM SIGPIPE SIGCHLD SIGQUIT setitimer alarm pthread_sigmask"
    functions = "fork pread pwrite sysconf getuid geteuid sched_getaffinity mkfifo killpg getpgid fchmod fchown"
    flags = "O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_CLOEXEC O_SYNC"
    sys.modules.update(dict.fromkeys(modules.split()))
    for name in signals.split():
        delattr(signal, name)
    for name in (functions + " " + flags).split():
        delattr(os, name)

    os.O_BINARY = 1 << 30
    text_files = set()  # descriptors whose line ends would be rewritten
    real_open, real_write, real_close = os.open, os.write, os.close

    def open_like_windows(path, flags, mode=0o777, **options):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        handle = real_open(path, flags & ~os.O_BINARY, mode, **options)
        text_files.discard(handle)
        if not flags & os.O_BINARY:
            text_files.add(handle)
        return handle

    def write_like_windows(handle, content):
        assert handle not in text_files, "written without O_BINARY"
        return real_write(handle, content)

    os.open, os.write = open_like_windows, write_like_windows
"""
SMALL = ["data.name=glyphs", "model.width=8", "train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2"]
SMALL += ["train.schedule=constant", "train.baseline=false", "eval.tasks=2", "data.queries=2"]


def like_windows(code: str, *argv: str, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(fmaml.__file__).parent.parent)}
    program = textwrap.dedent(LIKE_WINDOWS) + textwrap.dedent(code)
    command = [sys.executable, "-c", program, *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A process that has imported every module, trained and resumed, and the folder of its run."""
    code = """
        import importlib, pkgutil, fmaml
        names = [module.name for module in pkgutil.walk_packages(fmaml.__path__, "fmaml.")]
        for name in names:
            if name != "fmaml.__main__":
                importlib.import_module(name)
        print(len(names))
        from fmaml.cli.main import main
        assert main(["run", "omniglot", *sys.argv[2:], "--out", sys.argv[1]]) == 0
        assert main(["resume", sys.argv[1], "train.meta_steps=3"]) == 0
    """
    out = tmp_path_factory.mktemp("windows") / "out"
    done = like_windows(code, str(out), *SMALL)
    assert done.returncode == 0, done.stderr
    return done, out


def test_every_module_is_imported(ran):
    files = {path for path in Path(fmaml.__file__).parent.rglob("*.py")} - {Path(fmaml.__file__)}
    assert int(ran[0].stdout.splitlines()[0]) == len(files)


def test_a_run_trains_reports_and_is_resumed(ran):
    done, out = ran
    assert {"results.json", "best.safetensors", "task.png"} <= {path.name for path in out.iterdir()}
    assert "after step 2" in done.stderr + done.stdout


def test_standard_input_is_read_without_its_file():
    shown = command("show", "omniglot").stdout
    code = """
        from pathlib import Path
        real = Path.open
        def without_devices(path, *args, **options):
            if str(path).startswith("/dev/"):
                raise FileNotFoundError(2, "No such file or directory", str(path))
            return real(path, *args, **options)
        Path.open = without_devices
        from fmaml.cli.main import main
        sys.exit(main(["show", "-"]))
    """
    again = like_windows(code, input=shown)
    assert (again.returncode, again.stdout) == (0, shown), again.stderr


def test_the_download_folder_is_locked_by_a_file_in_it(tmp_path):
    code = """
        from pathlib import Path
        from fmaml.files.cache_folder import folder_lock
        with folder_lock(Path(sys.argv[1])):
            print(*os.listdir(sys.argv[1]))
    """
    done = like_windows(code, str(tmp_path))
    assert (done.returncode, done.stdout) == (0, ".lock\n"), done.stderr


def test_the_signals_that_there_are_stop_a_run():
    code = """
        signal.SIGBREAK = signal.SIGTSTP  # the number 21 of Windows has another name here
        from fmaml.processes.signals import STOP_SIGNALS
        print(*(number.name for number in STOP_SIGNALS))
    """
    done = like_windows(code)
    assert done.stdout == "SIGINT SIGTERM SIGTSTP\n", done.stderr


def test_the_holder_is_read_though_the_first_byte_is_locked(tmp_path, monkeypatch):
    """Windows locks that byte, and refuses a read of it to every process but the holder."""
    read = os.read

    def refusing(handle: int, size: int) -> bytes:
        if os.lseek(handle, 0, os.SEEK_CUR) == 0:
            raise PermissionError(13, "Permission denied")
        return read(handle, size)

    with locked(tmp_path):
        monkeypatch.setattr(os, "read", refusing)
        assert (tmp_path / LOCK_FILE).stat().st_size > 1
        with pytest.raises(Error, match=f"in use by process {os.getpid()} on "):
            refuse_if_held(tmp_path)
