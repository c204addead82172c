"""Prints a config, with overrides, without running it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from nemo_airflow.config import Config, Partial, apply_overrides, to_yaml, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import ConfigError, TargetNotImportableError


def run(name: str, overrides: Sequence[str], *, as_json: bool) -> int:
    """Prints the config that ``pkg.mod:name`` names, or that the function of that name returns."""
    config = load_config(name)
    if overrides:
        config = apply_overrides(config, overrides)
    if as_json:
        print(plans.dumps(plans.to_plan(config)))
    else:
        validate(config)
        print(to_yaml(config), end="")
    return 0


def load_config(name: str) -> Any:
    """Returns the config that ``pkg.mod:name`` names, or that the function of that name returns.

    Raises:
        ConfigError: It is no config.
        TargetNotImportableError: There is nothing of that name.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"{name!r} names no config: write it as pkg.mod:name")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise TargetNotImportableError(f"{name} cannot be imported: {error}") from error
    if callable(found) and not isinstance(found, (Config, Partial)):
        try:
            found = found()
        except TypeError as error:
            raise ConfigError(f"{name} cannot be called without arguments: {error}") from error
    if not isinstance(found, (Config, Partial)):
        raise ConfigError(
            f"{name} is {type(found).__name__}, not a Config, Partial or Script, nor a function that returns one"
        )
    return found
