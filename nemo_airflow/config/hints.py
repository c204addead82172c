"""Resolves the annotations of functions and classes one by one; leaves out those that cannot be resolved."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

import fiddle as fdl


def hints_of(target: Any) -> Mapping[str, Any]:
    """Returns the annotations of a target's parameters by name, and of its result as ``return``.

    Annotations written as texts are resolved; those that cannot be (a name that is imported for
    type checkers only, say) are not in the result.
    """
    try:
        return _cached_hints(target)
    except TypeError:  # a target that cannot be hashed
        return _hints(target)


def _hints(target: Any) -> Mapping[str, Any]:
    if not isinstance(target, type):
        return _resolved(inspect.unwrap(target))
    hints: dict[str, Any] = {}
    if _has_fields(target):
        for base in reversed(target.__mro__):
            hints.update(_resolved(base))
    constructor: Any = getattr(target, "__init__", None)
    if constructor is object.__init__:
        constructor = target.__new__
    own = _resolved(inspect.unwrap(constructor))
    # A dataclass's generated constructor has annotations as texts, without their module.
    return {**own, **hints} if hints else own


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
        return {name: hint for base in reversed(kind.__mro__) for name, hint in _one_by_one(base).items()}


_cached_hints = functools.lru_cache(maxsize=4096)(_hints)


def _has_fields(target: type) -> bool:
    is_record = dataclasses.is_dataclass(target) or hasattr(target, "model_fields")
    return is_record or (issubclass(target, tuple) and hasattr(target, "_fields"))


def _resolved(target: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target, include_extras=True) if not isinstance(target, type) else _of_class(target)
    except Exception:  # noqa: BLE001 - an annotation is any expression, and evaluating it may raise anything
        return _one_by_one(target)


def _of_class(target: type) -> dict[str, Any]:
    own = inspect.get_annotations(target)
    hints = typing.get_type_hints(target, include_extras=True) if own else {}
    return {name: hints[name] for name in own if name in hints}


def _one_by_one(target: Any) -> dict[str, Any]:
    module = sys.modules.get(getattr(target, "__module__", "") or "")
    names = {**vars(builtins), **(vars(module) if module else {}), **getattr(target, "__globals__", {})}
    scope = dict(vars(target)) if isinstance(target, type) else {}
    hints: dict[str, Any] = {}
    for name, annotation in getattr(target, "__annotations__", {}).items():
        holder = type("_Holder", (), {"__annotations__": {name: annotation}})
        with contextlib.suppress(Exception):  # as above
            hints[name] = typing.get_type_hints(holder, names, scope, include_extras=True)[name]
    return hints
