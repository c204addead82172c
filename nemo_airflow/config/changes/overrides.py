"""Sets values of a config by dotted path, converted to the annotations of the values that they replace."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow.config.changes.apply import change_config
from nemo_airflow.config.changes.composition import LAYERS
from nemo_airflow.config.objects.leaves import copy_config
from nemo_airflow.config.objects.origins import Origin, find_caller
from nemo_airflow.config.plan.allow import extend_allow as allow_here


def apply_overrides(
    config: Any,
    overrides: Mapping[str, Any] | Sequence[str],
    *,
    allow: Iterable[str] = (),
    folder: str | os.PathLike[str] | None = None,
    origin: str = "",
) -> Any:
    """Returns a copy of a config with other values in some places; shared values stay shared.

    A path leads through parameters, also those left at their default, through list indices and
    through dict keys: ``model.layers.0``, ``names["a.b"]``.

    Args:
        config: The config; it is not changed.
        overrides: Values by path, or texts such as ``"model.hidden=64"``. A text is read as the
            annotation at its path wants it: ``3e-4`` for a float, ``[1, 2]`` for a list, a member's
            name or value for an Enum, ``null`` where None is allowed. In the place of ``=`` it may have
            ``+=``, ``-=``, ``*=``, ``/=`` and ``|=``, which change the existing value, and ``~=``, which removes it.
            ``optimizer=adam(lr=0.1)`` is the config of a factory: of a named recipe, of a function or class
            beside the existing one, or of ``pkg.mod:name``. A mapping with a ``_target_`` is one too.
            ``optimizer=@file.yaml:key`` is a value from a file, and ``@file.yaml`` alone a layer for the whole
            config, as for :func:`~nemo_airflow.config.compose`.
            Below a recipe, a path that is not a parameter of its factory is changed in the job.
        allow: What may be imported for factories: exact names (``pkg.mod:name``), or prefixes that end with
            a dot. The config's own targets and registered recipes are always permitted.
        folder: What the paths of files are relative to; no files are read when None.
        origin: Who gives the overrides, for the config's history and for errors; the place of the call
            when empty.

    Raises:
        OverrideError: A path does not exist (the nearest names are in the message), or a text is
            not of the form ``path=value``.
        ParameterTypeError: A value does not fit the annotation at its path.
        TargetNotAllowedError: A factory is not permitted; nothing was imported.
    """
    code = find_caller()
    where = Origin(
        origin or f"{code.filename}:{code.line_number}",
        allow_here(allow),
        None if folder is None else Path(folder),
        None if origin else code,
    )
    return change(copy_config(config), overrides, where)


def change(config: Any, overrides: Mapping[str, Any] | Sequence[str], origin: Origin) -> Any:
    """Applies overrides to a config itself, and returns it, or another where it could not be changed."""
    return change_config(config, overrides, origin, LAYERS)
