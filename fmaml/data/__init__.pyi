# What a data source of one's own needs: read by type checkers, and by __init__.py.

from .rng import task_keys as task_keys
from .source import Metric as Metric
from .source import Source as Source

__all__: list[str]
