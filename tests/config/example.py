"""A small config, and what is said of one that is wrong."""

from typing import Any

import pytest

from fmaml.config.load import load_config
from fmaml.errors import Error

EXAMPLE = """\
data: {name: omniglot, ways: 5}
model: {name: conv4}
algorithm: {name: maml, inner_lr: 0.4, steps: 1}
optimizer: {name: adam, lr: 1e-3}
train: {meta_steps: 100, meta_batch: 4}
"""


def complaints(*args: Any) -> list[str]:
    with pytest.raises(Error) as caught:
        load_config(*args)
    return str(caught.value).splitlines()
