import os
import threading

import pytest

# Several processes that each take all cores wait for each other. What the tests start inherits it.
os.environ["OMP_NUM_THREADS"] = "1"

import torch


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
