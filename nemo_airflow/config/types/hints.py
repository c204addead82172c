"""Annotations of targets as Airflow's side asks for them; :mod:`nemo_airflow.language.hints` resolves them."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

import fiddle as fdl

from nemo_airflow.language.hints import hints_of as hints_of
from nemo_airflow.language.hints import own_hints


def returns_no_config(function: Any) -> bool:
    """Returns whether a function's annotation says that its result is no config, as that of a trainer does."""
    result = hints_of(function).get("return", Any)
    result = typing.get_origin(result) or result
    if result in (None, types.NoneType):
        return True
    if result in (Any, object, types.UnionType) or not isinstance(result, type):
        return False
    return not issubclass(result, fdl.Buildable)


def class_hints(kind: type) -> Mapping[str, Any]:
    """Returns the annotations in a class's body and in those of its bases, as far as they can be resolved."""
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - an annotation is any expression, and evaluating it may raise anything
        return {name: hint for base in reversed(kind.__mro__) for name, hint in own_hints(base).items()}
