import os
import threading

import pytest

# Several processes that each take all cores wait for each other. What the tests start inherits it.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

LONGEST = ("test_algorithms_benchmark.py", "test_benchmarks.py", "test_readme.py", "test_run.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that no process ends with one of them while the others have nothing left to do."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def server(request, monkeypatch):
    """The test module's own ``Server``, serving."""
    monkeypatch.setenv("no_proxy", "*")
    with request.module.Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
