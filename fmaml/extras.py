"""What an optional feature needs that `pip install fmaml` does not bring."""

from importlib.util import find_spec

from .errors import UserError


def require(feature: str, extra: str, *modules: str) -> None:
    """UserError with the command that installs them, unless all ``modules`` of the extra are installed."""
    missing = [module for module in modules if not is_installed(module)]
    if missing:
        raise UserError(f"{feature}: needs {', '.join(missing)}; pip install 'fmaml[{extra}]' installs it")


def is_installed(module: str) -> bool:
    """Whether it can be imported; a folder of that name, such as ``wandb`` with W&B's own files, is no module."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None
