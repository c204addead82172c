"""The type of a config's built value, as far as its target's annotations show it."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import typing
from typing import Any

import fiddle as fdl

from nemo_airflow.config.annotations import has_members, protocol_members
from nemo_airflow.config.callables import takes
from nemo_airflow.config.graph import recipe_overrides
from nemo_airflow.config.hints import hints_of
from nemo_airflow.language.record import Record

_CALLABLES = (typing.Callable, collections.abc.Callable)


def result_fits(buildable: Any, annotation: Any) -> bool:
    """Returns whether a config's built value fits an annotation; True where that cannot be known.

    Args:
        buildable: A config, a partial or an argument factory.
        annotation: A class, ``Callable``, or anything else.
    """
    if annotation is buildable.__fn_or_cls__ and not isinstance(buildable, fdl.Partial):
        return True
    if annotation in (Any, object) or recipe_overrides(buildable) is not None:
        return True  # a recipe's result is only known in the job
    if annotation in _CALLABLES or typing.get_origin(annotation) is collections.abc.Callable:
        fits = not isinstance(buildable, fdl.Partial) or takes(buildable, typing.get_args(annotation))
        return fits and _may_be_callable(buildable)
    if isinstance(buildable, fdl.Partial):
        return not isinstance(annotation, type) or _subclass(functools.partial, annotation)
    if typing.get_origin(annotation) is typing.Literal:
        annotation = type(typing.get_args(annotation)[0])
    expected = typing.get_origin(annotation) or annotation
    result = _result(buildable.__fn_or_cls__)
    if not isinstance(expected, type) or not isinstance(result, type):
        return True
    if expected is float and result is int:
        return True
    if (names := protocol_members(annotation)) is not None:
        methods = frozenset(name for name in names if callable(inspect.getattr_static(expected, name, None)))
        return not isinstance(buildable.__fn_or_cls__, type) or has_members(result, methods)
    # A function's annotation may be broader than its result; a class yields exactly itself.
    is_class = isinstance(buildable.__fn_or_cls__, type)
    return _subclass(result, expected) or (not is_class and _subclass(expected, result))


def _may_be_callable(buildable: Any) -> bool:
    if isinstance(buildable, fdl.Partial) or recipe_overrides(buildable) is not None:
        return True
    target = buildable.__fn_or_cls__
    result = _result(target)
    if not isinstance(result, type) or any("__call__" in vars(base) for base in result.__mro__):
        return True
    # A function may return a callable subclass of its annotation, but not of a type such as int.
    return not isinstance(target, type) and result.__module__ != "builtins"


def _result(target: Any) -> Any:
    if isinstance(target, type):
        return None if issubclass(target, Record) else target
    returned = hints_of(target).get("return")
    origin = typing.get_origin(returned)
    if origin is not None:
        return origin if isinstance(origin, type) else None
    is_known = (
        isinstance(returned, type) and returned not in (Any, object, type(None)) and not inspect.isabstract(target)
    )
    return returned if is_known else None


def _subclass(result: type, expected: type) -> bool:
    try:
        return issubclass(result, expected)
    except TypeError:  # a protocol with data members
        return True
