import threading

import pytest
import torch

torch.set_num_threads(1)  # small tensors; and the tests may run in two processes on two cores


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
