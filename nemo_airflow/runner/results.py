"""Turns a return value into plain JSON types."""

import datetime
import enum
import math
import os
from typing import Any


def plain(value: Any) -> Any:
    """Returns the value as JSON types.

    Raises:
        TypeError: It holds something that is neither a JSON type, nor an enum member, path, time,
            dataclass instance or scalar of an array library.
        ValueError: It holds a number that is not finite.
    """
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"it holds {value}, which JSON has not")
        return float(value)
    if isinstance(value, dict):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return _from_object(value)


def _from_object(value: Any) -> Any:
    import dataclasses

    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    # Scalars of NumPy, PyTorch, JAX ...: zero dimensions, and a Python scalar to give.
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        return plain(value.item())
    raise TypeError(f"type {type(value).__module__}.{type(value).__qualname__} is not JSON")


def _key(key: Any) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, (str, int, float, bool)) or key is None:
        return key if isinstance(key, str) else str(key)
    raise TypeError(f"a key of type {type(key).__qualname__} is not JSON")
