"""Two network namespaces of one machine as two nodes, each with an address of its own and its own `torchrun`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes.test_elastic import RUN, last_step, wait_for, workers_of
from processes.torchrun import Anew, finish, launched, start
from safetensors.torch import load_file

pytestmark = pytest.mark.namespaces
NODES = {"fmaml0": "10.77.0.1", "fmaml1": "10.77.0.2"}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def nodes():
    """Two namespaces with a cable between them."""
    try:
        for node in NODES:
            ip("netns", "add", node)
        ip("link", "add", "cable0", "netns", "fmaml0", "type", "veth", "peer", "name", "cable1", "netns", "fmaml1")
        for number, (node, address) in enumerate(NODES.items()):
            ip("-n", node, "addr", "add", f"{address}/24", "dev", f"cable{number}")
            ip("-n", node, "link", "set", f"cable{number}", "up")
            ip("-n", node, "link", "set", "lo", "up")
        yield list(NODES)
    finally:
        for node in NODES:
            subprocess.run(["ip", "netns", "del", node], stderr=subprocess.DEVNULL)


def agent_in(node: str, out: Path, restarts: int = 0) -> Anew:
    """`torchrun` of one process in a namespace; the first node has the rendezvous."""
    number = list(NODES).index(node)
    options = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={NODES['fmaml0']}:29577"]
    options += [f"--rdzv-conf=is_host={1 - number}", f"--local-addr={NODES[node]}", f"--max-restarts={restarts}"]
    launcher = ["ip", "netns", "exec", node, sys.executable, "-m", "torch.distributed.run", *options]
    # with the store that agents share by default, one that comes later is not told where it is (torch 2.13)
    environment = {"GLOO_SOCKET_IFNAME": f"cable{number}", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return launched([*launcher, *RUN, "--out", str(out)], {**environment, "FMAML_TIMEOUT": "60"})


def same_bits(out: Path, folder: Path) -> bool:
    """Whether the run ended with the bits of two processes on one machine."""
    finish(start(2, *RUN, "--out", str(folder / "one")))
    two, one = (load_file(path / "last.safetensors") for path in (out, folder / "one"))
    return all(two[name].equal(value) for name, value in one.items())


def test_two_nodes_train_as_two_processes_of_one(nodes, tmp_path):
    agents = [agent_in(node, tmp_path / "nodes") for node in nodes]
    said = [finish(agent) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert "".join(said).count("everything is in") == 1
    assert same_bits(tmp_path / "nodes", tmp_path)


def test_a_node_that_is_killed_and_started_again(nodes, tmp_path):
    out = tmp_path / "nodes"
    agents = [agent_in(node, out, restarts=3) for node in nodes]
    wait_for(lambda: last_step(out) > 100)
    for process in [*workers_of(agents[1]), agents[1].pid]:
        os.kill(process, signal.SIGKILL)
    finish(agents[1])
    agents[1] = agent_in(nodes[1], out, restarts=3)
    said = [finish(agent) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert same_bits(out, tmp_path)
