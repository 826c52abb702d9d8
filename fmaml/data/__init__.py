"""Sources of tasks. The names in ``__init__.pyi`` are public, for your own sources, and imported when first used."""

from .. import imported_when_used

__getattr__, __all__ = imported_when_used(__name__, __file__)
