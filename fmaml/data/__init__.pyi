# The names that a user's own data source needs. Type checkers and __init__.py read this file.

from .source import Metric as Metric
from .source import Source as Source
from .source import task_keys as task_keys

__all__: list[str]
