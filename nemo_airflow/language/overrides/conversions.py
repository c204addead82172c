"""Makes values of Python's own types of texts and of other values. Standard library only."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Optional, Union

Number = Union[int, float]

_BOOLS = {
    **dict.fromkeys(("true", "yes", "on", "y", "t", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "f", "0"), False),
}


def from_text(kind: Any, text: str, number: Optional[Number]) -> Any:
    """Returns the value of a class that a text stands for, or None.

    Args:
        kind: The class.
        text: The text.
        number: The number that the text says, or None.
    """
    if kind is str:
        return text
    if kind is bool:
        return None if number is True or number is False else _BOOLS.get(text.lower())
    if issubclass(kind, enum.Enum):
        return _member(kind, text, number)
    if kind in (int, float):
        return _number(kind, number)
    for base in kind.__mro__:
        make = _OF_TEXT.get((base.__module__.partition(".")[0], base.__qualname__))
        if make is not None:
            is_number = number is not None and make is _timedelta and not isinstance(number, bool)
            return _try_to_make(make, kind, number if is_number else text)
    return None


def from_value(kind: Any, value: Any) -> Any:
    """Returns a value of a class that another value stands for, or None; the value is no text."""
    if issubclass(kind, enum.Enum):
        return _member(kind, None, value)
    if kind is bool:
        return bool(value) if type(value) in (int, float) and value in (0, 1) else None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    if kind in (int, float):
        return _number(kind, value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name == "builtins.complex":
        return complex(value)
    if name == "datetime.timedelta":
        return _try_to_make(_timedelta, kind, value)
    return _try_to_make(kind, None, repr(value)) if name in ("decimal.Decimal", "fractions.Fraction") else None


def _number(kind: Any, number: Any) -> Optional[Number]:
    if number is None or isinstance(number, bool):
        return None
    if kind is float:
        try:
            return float(number)
        except OverflowError:
            return None
    return int(number) if isinstance(number, int) or number.is_integer() else None


def _member(kind: Any, text: Optional[str], value: Any) -> Any:
    if text is not None and text in kind.__members__:
        return kind.__members__[text]
    for candidate in (value, text):
        if candidate is None:
            continue
        for member in kind.__members__.values():
            if type(member.value) is type(candidate) and member.value == candidate:
                return member
    return None


def _try_to_make(make: Callable[..., Any], kind: Any, given: Any) -> Any:
    try:
        return make(given) if kind is None else make(kind, given)
    except (ValueError, TypeError, ArithmeticError, re.error):
        return None


def _timedelta(kind: Any, given: Any) -> Any:
    if not isinstance(given, str):
        return kind(seconds=given)
    match = _ISO_DURATION.fullmatch(given) or _DURATION.fullmatch(given)
    if match is None or not any(match.groupdict().values()):
        raise ValueError(given)
    parts = {name: float(part.replace(",", ".")) for name, part in match.groupdict().items() if part and name != "sign"}
    # A year is 365 days and a month 30, as pydantic writes and reads them.
    parts["days"] = parts.get("days", 0) + 365 * parts.pop("years", 0) + 30 * parts.pop("months", 0)
    made = kind(**parts)
    return -made if match["sign"] == "-" else made


_ISO_DURATION = re.compile(
    r"(?P<sign>[+-]?)P(?:(?P<years>[\d.,]+)Y)?(?:(?P<months>[\d.,]+)M)?(?:(?P<weeks>[\d.,]+)W)?(?:(?P<days>[\d.,]+)D)?"
    r"(?:T(?:(?P<hours>[\d.,]+)H)?(?:(?P<minutes>[\d.,]+)M)?(?:(?P<seconds>[\d.,]+)S)?)?",
    re.IGNORECASE,
)
_DURATION = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<days>\d+)\s*(?:d|days?)?,?(?:\s+|$))?"
    r"(?:(?P<hours>\d{1,2}):(?P<minutes>[0-5]\d)(?::(?P<seconds>[0-5]\d(?:\.\d+)?))?)?",
    re.IGNORECASE,
)


def _iso(kind: Any, text: str) -> Any:
    # The forms that Python reads since 3.7; it reads more since 3.11, but a job may have an earlier one.
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(text)
    before, decimals, zone = match.groups(default="")
    zone = "+00:00" if zone in ("Z", "z") else zone
    return kind.fromisoformat(f"{before}{'.' + decimals[:6].ljust(6, '0') if decimals else ''}{zone}")


_ISO = re.compile(r"(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?|\d\d:\d\d(?::\d\d)?)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)?")


def _decimal(kind: Any, text: str) -> Any:
    found = kind(text)
    return found if found.is_finite() else None


def _path(kind: Any, text: str) -> Any:
    import pathlib

    return pathlib.Path(text) if kind is os.PathLike else kind(text)


_OF_TEXT: Mapping[Any, Callable[..., Any]] = {
    ("builtins", "complex"): lambda kind, text: kind(text),
    ("builtins", "bytes"): lambda kind, text: kind(text.encode()),
    ("builtins", "bytearray"): lambda kind, text: kind(text.encode()),
    ("pathlib", "PurePath"): _path,
    ("os", "PathLike"): _path,
    ("datetime", "datetime"): _iso,
    ("datetime", "date"): _iso,
    ("datetime", "time"): _iso,
    ("datetime", "timedelta"): _timedelta,
    ("decimal", "Decimal"): _decimal,
    ("fractions", "Fraction"): lambda kind, text: kind(text),
    ("uuid", "UUID"): lambda kind, text: kind(text),
    ("ipaddress", "_BaseAddress"): lambda kind, text: kind(text),
    ("ipaddress", "_BaseNetwork"): lambda kind, text: kind(text),
    ("re", "Pattern"): lambda kind, text: re.compile(text),
}
"""How a text becomes a value, by the top module and the name of a class or one of its bases."""
