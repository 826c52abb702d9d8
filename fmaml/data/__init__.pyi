# What a data source of one's own needs: read by type checkers, and by __init__.py.

from .source import Metric as Metric
from .source import Source as Source
from .source import task_keys as task_keys

__all__: list[str]
