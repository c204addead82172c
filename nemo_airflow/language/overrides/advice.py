"""Hints for errors: how to write a value that an override tried to give in another way."""

from __future__ import annotations

import collections.abc
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Tuple, Union

from nemo_airflow.language.configs import parameters_of
from nemo_airflow.language.hints import annotation_of, bare, class_of, element_of, is_union
from nemo_airflow.language.names import is_allowed
from nemo_airflow.language.nearest import nearest


def classes_in(annotation: Any) -> Iterator[type]:
    """Yields the classes in an annotation."""
    waiting = [annotation]
    while waiting:
        found = waiting.pop()
        if isinstance(found, type) and not typing.get_args(found):
            yield found
        waiting += typing.get_args(found)


def as_call(annotation: Any, value: Any) -> str:
    """Returns how to write a mapping as the config of the annotated class; empty where it has no such parameters."""
    if not isinstance(value, dict) or not value:
        return ""
    for kind in classes_in(annotation):
        if all(key in _names(kind) for key in value):
            return f"; write {kind.__name__}({', '.join(f'{key}=...' for key in value)})"
    return ""


def as_whole(annotation: Any, path: str, keys: Sequence[Union[str, int]], text: str) -> str:
    """Returns how to write the whole value that contains another at these keys.

    Args:
        annotation: The annotation of the place.
        path: The place.
        keys: The keys below it, one at least.
        text: The value at their end, as it was written.

    Returns:
        The hint; empty where the annotation does not describe the values below the place.
    """
    whole = text
    wanted = [annotation]
    for key in keys[:-1]:
        wanted.append(_below(wanted[-1], key)[1])
    for kind, key in reversed(list(zip(wanted, keys))):
        form, _ = _below(kind, key)
        if not form:
            return ""
        whole = form.format(key=key, value=whole)
    return f"; write {path}={whole}"


def unknown_factory(
    name: str,
    registered: Iterable[str],
    modules: Iterable[str],
    names_in: Callable[[str], Sequence[str]],
    allow: Sequence[str],
) -> str:
    """Returns the error message for a factory that is neither registered nor in one of the modules of a config."""
    listed = [*registered]
    for module in modules:
        listed += [other for other in names_in(module) if is_allowed(f"{module}:{other}", allow)]
    names = list(dict.fromkeys(listed))
    near = nearest(name, names) if names else "; write pkg.mod:name(...)"
    return f"no recipe {name!r} is registered, and the modules of the config have no such name{near}"


def _below(annotation: Any, key: Union[str, int]) -> Tuple[str, Any]:
    """Returns how to write a value that has this key, and the annotation of the value at the key."""
    annotation = bare(annotation)
    members = typing.get_args(annotation) if is_union(typing.get_origin(annotation)) else (annotation,)
    for member in members:
        kind = class_of(member)
        if issubclass(kind, collections.abc.Mapping):
            return "{{{key}: {value}}}", element_of(member, key)
        if kind.__module__ != "builtins" and key in _names(kind):
            return f"{kind.__name__}({{key}}={{value}})", annotation_of(kind, key)
    return "", Any


def _names(kind: Any) -> Sequence[str]:
    if kind.__module__ == "builtins":
        return ()
    return [
        name
        for name, parameter in parameters_of(kind).items()
        if parameter.kind.name.startswith(("POSITIONAL_OR", "KEYWORD"))
    ]
