"""The trigger form of a config: Airflow's params from it, and a run's params as overrides of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nemo_airflow.exceptions import ConfigError, OverrideError
from nemo_airflow.language.nearest import similar

if TYPE_CHECKING:
    from airflow.sdk import Param

_OVERRIDES = "overrides"


def params_from(config: Any, prefix: str = "") -> dict[str, Param]:
    """Returns params for ``DAG(params=...)``: one for each value of a config that a form can show.

    A parameter without a value is a param without a default: Airflow then asks for it, and
    refuses such a param in a DAG that has a schedule.

    Args:
        config: The config that the operator runs, or the name of a registered recipe.
        prefix: Put before each name, with a dot; the operator's ``params_prefix``.

    Returns:
        The params by name, and ``<prefix>.overrides``, an object for all that has no field.

    Raises:
        ConfigError: The config itself has a parameter of the name ``overrides``.
    """
    from airflow.sdk import Param

    from nemo_airflow.config.views.form import form_fields
    from nemo_airflow.registered import named_recipe

    if isinstance(config, str):
        config = named_recipe(config)
    params: dict[str, Param] = {}
    for name, field in form_fields(config, prefix).items():
        section = ".".join(filter(None, (prefix, field.section)))
        shown: dict[str, Any] = {"title": field.title, **({"section": section} if section else {})}
        default = {} if field.required else {"default": field.default}
        params[name] = Param(**default, description=field.description or None, **field.schema, **shown)
    advanced = _name(prefix)
    if advanced in params:
        raise ConfigError(
            f"a parameter named {_OVERRIDES!r} has the name of the form's own field: rename the parameter", _OVERRIDES
        )
    params[advanced] = Param(
        {},
        description="Other values by dotted path, for what has no field here.",
        type=["object", "null"],
        title=_OVERRIDES,
        section=".".join(filter(None, (prefix, "advanced"))),
    )
    return params


def overrides_from(params: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns a run's params as overrides for :func:`nemo_airflow.config.apply_overrides`.

    Args:
        params: The run's params; names that do not begin with the prefix are left out.
        prefix: As given to :func:`params_from`.

    Raises:
        OverrideError: The advanced field is not an object.
    """
    start = f"{prefix}." if prefix else ""
    advanced = _name(prefix)
    found = {name[len(start) :]: params[name] for name in params if name.startswith(start) and name != advanced}
    others = params.get(advanced) or {}
    if not isinstance(others, Mapping):
        raise OverrideError(f"expected an object of values by path, got {type(others).__name__}", advanced)
    return {**found, **{str(path): value for path, value in others.items()}}


def check_conf(conf: Mapping[str, Any], known: Iterable[str]) -> None:
    """Checks that a run's conf has only keys that are params of its DAG; Airflow takes any.

    Args:
        conf: The run's conf.
        known: Names of the DAG's params.

    Raises:
        OverrideError: It has another one; the message has the nearest names.
    """
    names = list(known)
    for key in conf:
        if key not in names:
            raise OverrideError(f"the run's conf has {key!r}, which is not a param of the DAG{similar(key, names)}")


def _name(prefix: str) -> str:
    return f"{prefix}.{_OVERRIDES}" if prefix else _OVERRIDES
