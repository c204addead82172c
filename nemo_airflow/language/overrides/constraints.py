"""Constraints of annotations, ``Annotated[int, Gt(0)]``, checked without the library that they are of.

Those of annotated_types and of pydantic's ``Field`` and ``StringConstraints`` are known: bounds, multiples, lengths,
patterns and predicates. The messages are those that pydantic gives outside a job.
"""

from __future__ import annotations

import collections.abc
import decimal
import re
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Optional, Tuple

from nemo_airflow.language.hints import bare, class_of, element_of, is_union
from nemo_airflow.language.overrides.fits import Fit, Misfit, is_open
from nemo_airflow.language.texts import annotation_text, value_text

_KINDS = ((list, "list"), (tuple, "tuple"), (dict, "dictionary"), (set, "set"), (frozenset, "frozenset"))

_BOUNDS: Iterable[Tuple[str, str, Callable[[Any, Any], bool]]] = (
    ("gt", "greater than", lambda value, limit: value > limit),
    ("ge", "greater than or equal to", lambda value, limit: value >= limit),
    ("lt", "less than", lambda value, limit: value < limit),
    ("le", "less than or equal to", lambda value, limit: value <= limit),
    ("multiple_of", "a multiple of", lambda value, step: _is_multiple(value, step)),
)


def find_violation(annotation: Any, value: Any, stands_in: Callable[[Any], bool]) -> Optional[Misfit]:
    """Returns the first constraint that a value of the right type breaks, with the place in the value; or None.

    Args:
        annotation: The annotation.
        value: The value.
        stands_in: Whether a value stands for one that is not known yet, such as a config.
    """
    if value is None or is_open(annotation) or stands_in(value):
        return None
    inner = bare(annotation)
    for note in _notes(annotation):
        message = _broken(note, value)
        if message is not None:
            return Misfit((), f"{message}, got {value_text(value)}")
        if type(note).__name__ == "Predicate" and not note.func(value):
            return Misfit((), f"expected {annotation_text(inner)}, got {value_text(value)}")
    if is_union(typing.get_origin(inner)):
        return _in_union(typing.get_args(inner), value, stands_in)
    return _below(inner, value, stands_in)


def _in_union(members: Iterable[Any], value: Any, stands_in: Callable[[Any], bool]) -> Optional[Misfit]:
    fitting = [member for member in members if Fit(stands_in).fits(member, value)]
    broken = [find_violation(member, value, stands_in) for member in fitting]
    if not broken or None in broken:
        return None
    others = [member for member in members if member is not type(None)]
    if len(others) == 1:
        return broken[0]
    return Misfit((), f"expected {annotation_text(fitting[0])}, got {value_text(value)}")


def _below(annotation: Any, value: Any, stands_in: Callable[[Any], bool]) -> Optional[Misfit]:
    args = typing.get_args(annotation)
    items: Iterable[Tuple[Any, Any]] = ()
    if isinstance(value, dict):
        if len(args) == 2 and issubclass(class_of(annotation), collections.abc.Mapping):
            for key in value:
                if (misfit := find_violation(args[0], key, stands_in)) is not None:
                    return Misfit((), f"the key {value_text(key)}: {misfit.message}")
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif isinstance(value, (set, frozenset)):
        items = ((None, item) for item in value)
    for key, item in items:
        misfit = find_violation(element_of(annotation, 0 if key is None else key), item, stands_in)
        if misfit is not None:
            return Misfit(misfit.keys if key is None else (key, *misfit.keys), misfit.message)
    return None


def _notes(annotation: Any) -> Iterator[Any]:
    """Yields the notes of an annotation, and those in pydantic's ``Field``."""
    for note in getattr(annotation, "__metadata__", ()):
        yield from getattr(note, "metadata", None) or (note,)


def _broken(note: Any, value: Any) -> Optional[str]:
    """Returns what is wrong with a value, or None."""
    for name, words, holds in _BOUNDS:
        limit = getattr(note, name, None)
        try:
            if limit is not None and not holds(value, limit):
                return f"input should be {words} {_number_text(limit)}"
        except TypeError:  # of values that cannot be compared
            continue
    least, most = getattr(note, "min_length", None), getattr(note, "max_length", None)
    if isinstance(value, collections.abc.Sized):
        if least and len(value) < least:
            return _length(value, f"at least {least}", least)
        if most is not None and len(value) > most:
            return _length(value, f"at most {most}", most)
    pattern = getattr(note, "pattern", None)
    if pattern is not None and isinstance(value, str) and re.search(pattern, value) is None:
        return f"string should match pattern {getattr(pattern, 'pattern', pattern)!r}"
    return None


def _length(value: Any, wanted: str, count: int) -> str:
    plural = "" if count == 1 else "s"
    if isinstance(value, str):
        return f"string should have {wanted} character{plural}"
    if isinstance(value, (bytes, bytearray)):
        return f"data should have {wanted} byte{plural}"
    kind = next((name for kind, name in _KINDS if isinstance(value, kind)), "value")
    is_counted = wanted.startswith("at least") or isinstance(value, (list, tuple))
    return f"{kind} should have {wanted} item{plural} after validation, not {len(value) if is_counted else 'more'}"


def _is_multiple(value: Any, step: Any) -> bool:
    rest = value % step
    if not isinstance(value, float) and not isinstance(step, float):
        return bool(rest == 0)
    tolerance = abs(value) / 1e9
    return bool(abs(rest) <= tolerance or abs(abs(rest) - step) <= tolerance)


def _number_text(limit: Any) -> str:
    """Returns a limit as pydantic writes it: ``0.0`` without its decimals, ``1e-07`` without an exponent."""
    if not isinstance(limit, float):
        return str(limit)
    text = f"{decimal.Decimal(repr(limit)):f}"
    return text[:-2] if text.endswith(".0") else text
