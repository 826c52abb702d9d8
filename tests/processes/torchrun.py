"""`torchrun`, as the tests of many processes need it: it and its workers are forked from the process of the tests."""

import contextlib
import logging
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from children import PATIENCE, Child
from children import start as start_child
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def command(processes: int, *words: str, **options: Any) -> list[str]:
    """``torchrun`` with a rendezvous of its own, and a script, or with ``-m`` a module, and its arguments."""
    given = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    return ["--standalone", f"--nproc-per-node={processes}", *given, *words]


def start(processes: int, *words: str, environment: dict[str, str] | None = None, **options: Any) -> Child:
    """`torchrun` on this machine. What it prints goes to a file, since a pipe that nobody reads would stop it."""
    given = command(processes, *words, **options)
    with tempfile.NamedTemporaryFile(delete=False) as said:
        agent = start_child(lambda: torchrun(given), said.fileno(), said.fileno(), environment=environment)
    agent.said = Path(said.name)
    return agent


def torchrun(words: list[str]) -> None:
    """The agent, whose workers are forked where Python would be started anew.

    No worker begins before the last one is forked. A worker that connects makes a thread of the agent look up names,
    and a process that is forked meanwhile could never look up one: it would inherit the C library's lock.
    """
    for name in logging.root.manager.loggerDict:
        for handler in logging.getLogger(name).handlers:
            if type(handler) is logging.StreamHandler:  # its stream is the test runner's
                handler.setStream(sys.stderr)

    begun: list[Any] = []

    def fork(self: Any, args: tuple[str, ...], env: dict[str, str]) -> Any:
        rank, workers = int(env["LOCAL_RANK"]), int(env["LOCAL_WORLD_SIZE"])
        if rank == 0:
            begun.append(get_context("fork").Event())
        event = begun[-1]
        child = start_child(lambda: event.wait() and python(*args[2:]), environment=env)
        if rank == workers - 1:
            event.set()
        return child

    SubprocessHandler._popen = fork
    run.main(words)


def python(*words: str) -> None:
    """What `python` does with these words."""
    module = words[0] == "-m"
    sys.argv = list(words[module:])
    if module:
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")


class Anew(subprocess.Popen):
    """A process that imports torch anew, and the file to which it prints."""

    said: Path


def start_anew(processes: int, *words: str) -> Anew:
    """As `start`, by the command of a user."""
    return launched([sys.executable, "-m", "torch.distributed.run", *command(processes, *words)], {})


def launched(command: list[str], environment: dict[str, str]) -> Anew:
    """The command in a session of its own."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "PYTHONPATH": path, **environment}
    with tempfile.NamedTemporaryFile(delete=False) as said:
        agent = Anew(command, env=env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
    agent.said = Path(said.name)
    return agent


def finish(agent: Child | Anew) -> str:
    """What the agent has printed when it ends. If it does not, it is killed, and the error says where it stood."""
    try:
        agent.wait(PATIENCE)
        return agent.said.read_text()
    except subprocess.TimeoutExpired as late:
        processes = [*workers_of(agent), agent.pid]
        signal_all(processes, signal.SIGUSR2)
        time.sleep(2)
        said = agent.said.read_text()
        signal_all(processes, signal.SIGKILL)
        raise AssertionError(said) from late
    finally:
        agent.said.unlink(missing_ok=True)


def workers_of(agent: Child | Anew) -> list[int]:
    """The processes that an agent has started and that have not ended, by rank."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(state[1]) == agent.pid and state[0] != "Z":
                found.append(int(entry.name))
    return sorted(found)


def signal_all(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
            os.kill(process, number)
