"""Finds artifacts in the plain JSON values that tasks hand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nemo_airflow.language.artifact import TAG, Artifact


def read_references(value: Any) -> Any:
    """Returns a value with an :class:`Artifact` in the place of each JSON form of one; a value without any as it is."""
    return _replaced(value, lambda data: Artifact.from_json(data))


def find_references(value: Any) -> list[Artifact]:
    """Returns the artifacts whose JSON forms are in a value."""
    return [Artifact.from_json(data) for data in _forms(value)]


def replace_references(value: Any, by: Mapping[Artifact, Artifact]) -> Any:
    """Returns a value with the JSON forms of other artifacts."""
    return _replaced(value, lambda data: by.get(Artifact.from_json(data), Artifact.from_json(data)).to_json())


def is_reference(value: Any) -> bool:
    """Returns whether a value is the JSON form of an artifact."""
    if not isinstance(value, Mapping) or set(value) != {TAG}:
        return False
    try:
        Artifact.from_json(value)
    except ValueError:
        return False
    return True


def _replaced(value: Any, new: Callable[[Any], Any]) -> Any:
    if next(_forms(value), None) is None:
        return value
    if is_reference(value):
        return new(value)
    if isinstance(value, Mapping):
        return {key: _replaced(item, new) for key, item in value.items()}
    items = [_replaced(item, new) for item in value]
    return tuple(items) if isinstance(value, tuple) else items  # the outputs of mapped tasks have a class of their own


def _forms(value: Any) -> Iterator[Any]:
    ahead = [value]
    while ahead:
        here = ahead.pop()
        if is_reference(here):
            yield here
        elif isinstance(here, Mapping):
            ahead.extend(reversed(list(here.values())))
        elif isinstance(here, Sequence) and not isinstance(here, (str, bytes, bytearray)):
            ahead.extend(reversed(list(here)))
