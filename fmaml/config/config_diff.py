"""Compare configs with each other, with the packaged experiment of the same name, or with the defaults."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..config import packaged
from .load import read_config
from .settings import Config
from .signature import REQUIRED
from .validate import SECTIONS, section_settings, validate_config

NO_VALUE = "–"  # in place of a missing value


class Changed(NamedTuple):
    """A setting that differs."""

    key: str  # dotted
    value: Any
    usual: Any  # its value in the base; REQUIRED if it has no default


def changed_settings(config: Config) -> tuple[str, list[Changed]]:
    """The name of the base, and the settings that differ from it.

    The base is the packaged experiment of the same name, or else the defaults.
    """
    name = config.get("name", "")
    if name in packaged.experiment_names():
        published, _ = validate_config({"name": name, **read_config(packaged.FOLDER / f"{name}.yaml")})
        return f"the experiment {name} that comes with fmaml", differences_from(published, config)
    return "the defaults", differences_from({}, config)


def differences_from(base: Config, config: Config) -> list[Changed]:
    """The settings that differ from ``base``, or from the default where ``base`` lacks them."""
    found: list[Changed] = []
    if config.get("seed", 0) != base.get("seed", 0):
        found.append(Changed("seed", config["seed"], base.get("seed", 0)))
    for section in SECTIONS:
        defaults = section_settings(section, config.get(section)) or {}
        for key, value in (config.get(section) or {}).items():
            default = defaults[key].default if key in defaults else REQUIRED
            usual = (base.get(section) or {}).get(key, default)
            if usual is REQUIRED or setting_text(usual) != setting_text(value):
                found.append(Changed(f"{section}.{key}", value, usual))
    return found


def settings_that_differ(configs: Sequence[Config]) -> dict[str, list[str]]:
    """Dotted key -> its value in each config as text, for the settings that differ."""
    return {key: [*map(setting_text, values)] for key, values in differing(configs, NO_VALUE).items()}


def differing(trees: Sequence[Mapping[str, Any]], absent: Any = None) -> dict[str, list[Any]]:
    """Dotted key -> its value in each of several nested dicts, for the values that differ."""
    flat = [flattened(tree) for tree in trees]
    found = {key: [values.get(key, absent) for values in flat] for values in flat for key in values}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def setting_text(value: Any) -> str:
    """A setting's value as JSON; a string without quotes."""
    if value is REQUIRED:
        return NO_VALUE
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
