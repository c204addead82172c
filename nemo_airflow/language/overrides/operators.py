"""Applies an override's operator to the existing value and the given one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nemo_airflow.language.errors import OverrideError

OPERATORS = ("=", "+=", "-=", "*=", "/=", "|=", "~=")

MAX_BITS = 4096
"""Most bits of a whole number."""


def combine(operator: str, old: Any, new: Any) -> Any:
    """Returns the result of an operator for the existing value and the given one.

    ``+=`` adds numbers, joins texts, extends a list or tuple with a list or appends anything else to
    it, and adds to a set; ``-=`` subtracts, also from a set; ``*=`` and ``/=`` are for numbers, and
    whole numbers stay whole where they divide; ``|=`` merges dicts and unites sets; ``~=`` removes
    equal values from a list, tuple or set, and keys from a dict, each as one value or a list of them.

    Args:
        operator: One of :data:`OPERATORS`.
        old: The existing value; it is not changed.
        new: The given value.

    Raises:
        OverrideError: The operator cannot be used with these values, or there is nothing to remove.
    """
    if operator == "=":
        return new
    if operator == "~=":
        return _without(old, new)
    if _is_number(old) and _is_number(new) and operator in _ARITHMETIC:
        return _computed(operator, old, new)
    if operator == "+=" and isinstance(old, str) and isinstance(new, str):
        return old + new
    if operator == "+=" and isinstance(old, (list, tuple)) and not hasattr(old, "_fields"):
        more = list(new) if isinstance(new, (list, tuple)) else [new]
        return type(old)([*old, *more])
    if operator == "|=" and isinstance(old, dict) and isinstance(new, Mapping):
        return {**old, **new}
    if operator in ("+=", "|=", "-=") and isinstance(old, (set, frozenset)):
        try:
            more_set = set(new) if isinstance(new, (list, tuple, set, frozenset)) else {new}
        except TypeError:
            raise OverrideError(f"{_shown(new)} cannot be in a set") from None
        return type(old)(old - more_set if operator == "-=" else old | more_set)
    raise OverrideError(f"{operator} cannot be used with {kind_text(old)} and {kind_text(new)}: {_hint(operator, old)}")


_ARITHMETIC = ("+=", "-=", "*=", "/=")


def kind_text(value: Any) -> str:
    """Returns the kind of a value, for an error."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _computed(operator: str, old: Any, new: Any) -> Any:
    try:
        if operator == "/=":
            whole = isinstance(old, int) and isinstance(new, int) and old % new == 0
            result: Any = old // new if whole else old / new
        else:
            result = old + new if operator == "+=" else old - new if operator == "-=" else old * new
    except ArithmeticError as error:
        raise OverrideError(f"{old!r} {operator} {new!r}: {str(error) or type(error).__name__}") from None
    if isinstance(result, int) and result.bit_length() > MAX_BITS:
        raise OverrideError(f"{operator} makes a number of more than {MAX_BITS} bits")
    return result


def _without(old: Any, new: Any) -> Any:
    wanted = list(new) if isinstance(new, (list, tuple, set, frozenset)) else [new]
    if isinstance(old, dict):
        there = [key for key in old if any(_same(key, item) or str(key) == item for item in wanted)]
        if not there:
            raise OverrideError(f"the key {_shown(new)} is not there; keys: {_listed(old)}")
        return {key: value for key, value in old.items() if key not in there}
    if not isinstance(old, (list, tuple, set, frozenset)) or hasattr(old, "_fields"):
        raise OverrideError(f"~= with a value cannot be used with {kind_text(old)}: {_hint('~=', old)}")
    kept = [item for item in old if not any(_same(item, other) for other in wanted)]
    if len(kept) == len(old):
        raise OverrideError(f"the value {_shown(new)} is not there; values: {_listed(old)}")
    return type(old)(kept)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    try:
        return bool(left == right)
    except Exception:  # noqa: BLE001 - the comparison of other people's types: what it cannot say is not equal
        return False


def _listed(values: Iterable[Any]) -> str:
    texts = [_shown(value) for value in values]
    return ", ".join(texts[:8]) + (", ..." if len(texts) > 8 else "") if texts else "none"


def _shown(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 60 else f"{text[:57]}..."


def _hint(operator: str, old: Any) -> str:
    if old is None:
        return "no value is set yet: set one with ="
    return {
        "+=": "it adds numbers, joins texts, and extends lists and sets",
        "-=": "it subtracts numbers and removes from sets; ~= removes from a list",
        "*=": "it multiplies numbers",
        "/=": "it divides numbers",
        "|=": "it merges dicts and unites sets",
        "~=": "it removes values from lists and sets, and keys from dicts",
    }.get(operator, "operators are " + " ".join(OPERATORS))
