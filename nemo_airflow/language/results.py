"""The type of a config's built value, as far as its target's annotations show it."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import typing
from typing import Any

from nemo_airflow.language.hints import bare, hints_of, is_union
from nemo_airflow.language.record import Record


def result_fits(config: Any, annotation: Any, *, is_partial: bool) -> bool:
    """Returns whether a config's built value fits an annotation; True where that cannot be known.

    Args:
        config: A config, a partial or an argument factory; Fiddle's, or the job's.
        annotation: A class, ``Callable``, or anything else.
        is_partial: Whether it is a partial, which builds a callable.
    """
    annotation = bare(annotation)
    target = config.__fn_or_cls__
    if annotation in (Any, object) or (annotation is target and not is_partial):
        return True
    origin = typing.get_origin(annotation)
    if is_union(origin):
        return any(result_fits(config, member, is_partial=is_partial) for member in typing.get_args(annotation))
    if collections.abc.Callable in (annotation, origin):
        fits = not is_partial or takes_call(config, typing.get_args(annotation), is_partial=True)
        return fits and (is_partial or _may_be_callable(target))
    if is_partial:
        return not isinstance(annotation, type) or _subclass(functools.partial, annotation)
    if origin is typing.Literal:
        annotation = type(typing.get_args(annotation)[0])
    expected = typing.get_origin(annotation) or annotation
    result = _result(target)
    if not isinstance(expected, type) or not isinstance(result, type):
        return True
    if expected is float and result is int:
        return True
    if (names := protocol_members(annotation)) is not None:
        methods = frozenset(name for name in names if callable(inspect.getattr_static(expected, name, None)))
        return not isinstance(target, type) or has_members(result, methods)
    # A function's annotation may be broader than its result; a class yields exactly itself.
    return _subclass(result, expected) or (not isinstance(target, type) and _subclass(expected, result))


def takes_call(value: Any, args: typing.Tuple[Any, ...], *, is_partial: bool = False) -> bool:
    """Returns whether a callable accepts the arguments of ``Callable[...]``; True where that cannot be known.

    Only the number of arguments is checked.

    Args:
        value: A callable, or the config of a partial.
        args: The arguments of ``Callable``: those of the call, and the result; or none.
        is_partial: Whether it is the config of a partial.
    """
    if len(args) != 2 or args[0] is ... or type(args[0]).__name__ == "ParamSpec":
        return True
    is_open = not isinstance(args[0], list)  # Concatenate
    count = len(typing.get_args(args[0])) - 1 if is_open else len(args[0])
    if is_partial:
        # Named arguments of a partial may still be removed or set, so only too many positional ones count.
        count += sum(isinstance(key, int) for key in value.__arguments__)
        value, is_open = value.__fn_or_cls__, True
    try:
        # What a wrapper takes may differ from what it wraps.
        signature = inspect.signature(value, follow_wrapped=False)
    except (TypeError, ValueError):
        return True
    try:
        (signature.bind_partial if is_open else signature.bind)(*[None] * count)
    except TypeError:
        return False
    return True


def protocol_members(annotation: Any) -> typing.Optional[typing.FrozenSet[str]]:
    """Returns the members that a protocol requires, or None for any other type."""
    kind = typing.get_origin(annotation) or annotation
    if not isinstance(kind, type) or not getattr(kind, "_is_protocol", False):
        return None
    bases = [base for base in kind.__mro__ if getattr(base, "_is_protocol", False)]
    names = {name for base in bases for name in (*vars(base), *vars(base).get("__annotations__", ()))}
    return frozenset(name for name in names if name not in _OF_EVERY_PROTOCOL and not name.startswith("_abc_"))


_OF_EVERY_PROTOCOL = frozenset(dir(typing.Protocol)) | {
    "__annotations__", "__parameters__", "__orig_bases__", "__protocol_attrs__", "__non_callable_proto_members__",
    "__dict__", "__weakref__", "__slots__", "__module__", "__static_attributes__", "__firstlineno__", "__qualname__",
    "__abstractmethods__", "__type_params__", "_is_protocol", "_is_runtime_protocol", "__annotate__",
    "__annotate_func__", "__annotations_cache__", "__match_args__",
}  # fmt: skip


def has_members(value: Any, names: typing.Iterable[str]) -> bool:
    """Returns whether a value has all these attributes; one that only a call could reveal counts as present."""
    missing = object()
    for name in names:
        if inspect.getattr_static(value, name, missing) is not missing:
            continue
        if inspect.getattr_static(type(value), "__getattr__", missing) is missing:
            return False
    return True


def _may_be_callable(target: Any) -> bool:
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
