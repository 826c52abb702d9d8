"""In which settings a config differs from the experiment of its name, from the defaults, or from other configs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..config import packaged
from .load import read_config
from .settings import Config
from .signature import REQUIRED
from .validate import SECTIONS, section_settings, validate_config

NO_VALUE = "–"  # in the place of a value that there is none of


class Changed(NamedTuple):
    """A setting that differs."""

    key: str  # dotted
    value: Any
    usual: Any  # what it would be otherwise; REQUIRED if it has no default


def changed_settings(config: Config) -> tuple[str, list[Changed]]:
    """What the config is compared with, in words, and the settings in which it differs.

    It is compared with the experiment of its name that comes with fmaml, or else with the defaults.
    """
    name = config.get("name", "")
    if name in packaged.experiment_names():
        published, _ = validate_config({"name": name, **read_config(packaged.FOLDER / f"{name}.yaml")})
        return f"the experiment {name} that comes with fmaml", differences_from(published, config)
    return "the defaults", differences_from({}, config)


def differences_from(base: Config, config: Config) -> list[Changed]:
    """The settings whose values are other than in ``base``, or than the default where that does not have them."""
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
    """Dotted key -> its value in each config as text, for the settings that are not the same in all."""
    flat = [{key: setting_text(value) for key, value in flattened(config).items()} for config in configs]
    keys = dict.fromkeys(key for values in flat for key in values)
    texts = {key: [values.get(key, NO_VALUE) for values in flat] for key in keys}
    return {key: values for key, values in texts.items() if len(set(values)) > 1}


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def setting_text(value: Any) -> str:
    """A setting's value as text, without the quotes of a word."""
    if value is REQUIRED:
        return NO_VALUE
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
