"""Every pool, norm and shape of conv4; `tests/test_laws.py` has half of the grid in seconds."""

import pytest
from problems import NORMS, POOLS, SHAPES, conv4_agrees

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("inputs", SHAPES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("pool", POOLS)
def test_vmap_loop_chunks_agree(pool, norm, inputs, first_order):
    conv4_agrees(pool, norm, inputs, first_order)
