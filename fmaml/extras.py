"""What an optional feature needs that `pip install fmaml` does not bring."""

from importlib.util import find_spec

from .errors import UserError


def require(feature: str, extra: str, *modules: str) -> None:
    """UserError with the command that installs them, unless all ``modules`` of the extra are installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise UserError(f"{feature}: needs {', '.join(missing)}; pip install 'fmaml[{extra}]' installs it")
