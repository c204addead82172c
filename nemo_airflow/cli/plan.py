"""Prints a config, with layers and overrides, without running it."""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_airflow.cli.output import JSON
from nemo_airflow.cli.terminal import divert_prints
from nemo_airflow.config import Config, Partial, to_yaml
from nemo_airflow.config import plan as plans
from nemo_airflow.config.changes.composition import errors_in, lay
from nemo_airflow.config.changes.factories import is_config, to_own_config
from nemo_airflow.config.changes.merging import ABSENT
from nemo_airflow.config.changes.overrides import change
from nemo_airflow.config.changes.value_files import ENDINGS, as_file
from nemo_airflow.config.objects.leaves import copy_config
from nemo_airflow.config.objects.origins import Origin
from nemo_airflow.config.plan.allow import extend_allow as allow_here
from nemo_airflow.config.plan.allow import load_code, own_packages
from nemo_airflow.config.types.hints import returns_no_config
from nemo_airflow.exceptions import ConfigError, TargetNotImportableError
from nemo_airflow.registered import RECIPES, registered

_TO_RUN_IT = "To run the function itself in a job, annotate what it returns, such as '-> float'"


def run(
    name: str, overrides: Sequence[str], *, layers: Sequence[str] = (), allow: Sequence[str] = (), output: str
) -> int:
    """Prints a config with layers and overrides; see :func:`compose_config`."""
    config = compose_config(name, overrides, layers, allow)
    plan = write_plan(config)
    print(plans.dumps(plan) if output == JSON else to_yaml(config).rstrip("\n"))
    return 0


@divert_prints()
def write_plan(config: Any) -> dict[str, Any]:
    """Returns the plan of a valid config; raises ConfigError for any other."""
    return plans.to_plan(config)


@divert_prints()
def compose_config(name: str, overrides: Sequence[str], layers: Sequence[str] = (), allow: Sequence[str] = ()) -> Any:
    """Returns a config with layers laid over it, and overrides applied to that.

    Args:
        name: ``pkg.mod:name`` of a config, of a function that returns one, or of a function to run, which says by an
            annotation that it returns something else; a file, or a registered recipe.
        overrides: The overrides.
        layers: Files, recipes, or names in code, in their order.
        allow: What files and overrides may import, besides registered recipes.

    Raises:
        ConfigError: One of them is wrong.
    """
    see_current_folder()
    recipes = registered(RECIPES)
    origin = Origin("the command line", allow_here(allow), Path.cwd())
    is_file = as_file(name) is not None
    is_code = ":" in name and not is_file
    if is_code:
        config = copy_config(load_config(name))  # the module's own config is not changed
    elif is_file or name.partition("(")[0] in recipes:
        with errors_in(name):
            config = lay(ABSENT, name, origin)
    else:
        known = f", one of {', '.join(sorted(recipes))}" if recipes else ""
        raise ConfigError(
            f"{name!r} is not the name of a config: write pkg.mod:name, a file that ends with {', '.join(ENDINGS)}, "
            f"or the name of a recipe{known}; to see all of them, run: nemo-airflow list"
        )
    for layer in layers:
        with errors_in(f"--layer {layer}"):
            config = lay(config, layer, origin)
    if is_code:
        # A user who names their own code on the command line may name more of it there.
        own = own_packages([name, *plans.targets(plans.to_plan(config, check=False))])
        origin = dataclasses.replace(origin, allow=(*origin.allow, *own))
    config = change(config, overrides, origin)
    if not isinstance(config, (Config, Partial)):
        raise ConfigError(f"{name} is a {type(config).__name__}, not a config: add a _target_")
    return config


@divert_prints()
def load_config(name: str) -> Any:
    """Returns the config ``pkg.mod:name``, the result of the function of that name, or a config of that function.

    A function whose annotation says that it returns no config is what the job is to run: it is not called here.

    Raises:
        ConfigError: It is not a config.
        TargetNotImportableError: The name does not exist.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"{name!r} is not the name of a config: write it as pkg.mod:name")
    see_current_folder()
    try:
        found = load_code(name)
    except (ImportError, AttributeError) as error:
        raise TargetNotImportableError(f"{name} cannot be imported: {error}") from error
    if inspect.isfunction(found) and returns_no_config(found):
        return Config(found)
    called = callable(found) and not is_config(found)
    if called:
        try:
            found = found()
        except TypeError as error:
            raise ConfigError(f"{name} cannot be called without arguments: {error}. {_TO_RUN_IT}") from error
    if not is_config(found):
        kind = type(found).__name__
        if called:
            raise ConfigError(f"{name} returned {kind}, not a Config, Partial or Script. {_TO_RUN_IT}")
        raise ConfigError(f"{name} is {kind}, not a Config, Partial or Script, nor a function that returns one")
    return to_own_config(found, name)


def see_current_folder() -> None:
    """Lets code in the current folder be imported, as ``python -m`` does."""
    if (folder := os.getcwd()) not in sys.path:
        sys.path.insert(0, folder)
