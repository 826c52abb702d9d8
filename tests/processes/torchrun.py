"""Starts processes with `torchrun`, as the tests of many processes need it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE = 600.0  # seconds a test waits for an event: far more than it takes on a machine that has much else to do


def command(processes: int, *words: str, **options: Any) -> list[str]:
    """``torchrun`` with a rendezvous of its own, and a script, or with ``-m`` a module, and its arguments."""
    given = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        *given,
        *words,
    ]


class Agent(subprocess.Popen):
    """A process of `torchrun`. What it prints goes to a file, since a pipe that nobody reads would stop it."""

    said: Path


def start(processes: int, *words: str, environment: dict[str, str] | None = None, **options: Any) -> Agent:
    """`torchrun` on this machine."""
    return launched(command(processes, *words, **options), environment or {})


def launched(command: list[str], environment: dict[str, str]) -> Agent:
    """The command in a session of its own, with one thread a process."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environment}
    with tempfile.NamedTemporaryFile(delete=False) as said:
        agent = Agent(command, env=env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
    agent.said = Path(said.name)
    return agent


def finish(agent: Agent) -> str:
    """What the agent has printed when it ends."""
    try:
        agent.wait(PATIENCE)
        return agent.said.read_text()
    finally:
        agent.said.unlink(missing_ok=True)
