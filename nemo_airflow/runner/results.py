"""Turns a return value into plain JSON types."""

import datetime
import enum
import math
import os
from typing import Any, List


def plain(value: Any, replaced: List[str], path: str = "") -> Any:
    """Returns the value as JSON types.

    Args:
        value: What the job's function returned.
        replaced: Receives the paths of numbers that are not finite; they become None, since JSON does not have them.
        path: Where the value is.

    Raises:
        TypeError: It contains something that is neither a JSON type, nor an enum member, path, time,
            dataclass instance or scalar of an array library.
        ValueError: Two keys of a dictionary become one in JSON.
    """
    if isinstance(value, enum.Enum):
        return plain(value.value, replaced, path)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            replaced.append(f"{path.lstrip('.') or 'the value itself'} is {value}")
            return None
        return float(value)
    if isinstance(value, dict):
        return _plain_dict(value, replaced, path)
    if isinstance(value, (list, tuple)):
        return [plain(item, replaced, f"{path}[{index}]") for index, item in enumerate(value)]
    return _from_object(value, replaced, path)


def _plain_dict(value: Any, replaced: List[str], path: str) -> Any:
    items = {}
    for key, item in value.items():
        name = _key(key)
        if name in items:
            raise ValueError(f"two keys at {path.lstrip('.') or 'the top'} become the same key {name!r} in JSON")
        items[name] = plain(item, replaced, f"{path}.{name}")
    return items


def _from_object(value: Any, replaced: List[str], path: str) -> Any:
    import dataclasses

    if isinstance(value, os.PathLike):
        return _of_path(value, path)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name), replaced, f"{path}.{field.name}")
            for field in dataclasses.fields(value)
        }
    # Scalars of NumPy, PyTorch, JAX ...: zero dimensions, and a Python scalar to give.
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        return plain(value.item(), replaced, path)
    raise TypeError(f"type {type(value).__module__}.{type(value).__qualname__} cannot be written as JSON")


def _of_path(value: Any, path: str) -> Any:
    from nemo_airflow.language.artifact import Artifact

    if not isinstance(value, Artifact):
        return os.fspath(value)
    import dataclasses

    return dataclasses.replace(value, name=value.name or path.lstrip(".") or value.file).to_json()


def has_artifact(value: Any) -> bool:
    """Returns whether there is an artifact in a value, at any place of its dicts, lists and tuples."""
    import sys

    if "nemo_airflow.language.artifact" not in sys.modules:
        return False
    from nemo_airflow.language.artifact import Artifact

    ahead, seen = [value], set()
    while ahead:
        here = ahead.pop()
        if isinstance(here, Artifact):
            return True
        if isinstance(here, (dict, list, tuple)) and id(here) not in seen:
            seen.add(id(here))
            ahead.extend(here.values() if isinstance(here, dict) else here)
    return False


def _key(key: Any) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, (str, int, float)):
        return key if isinstance(key, str) else str(key)
    raise TypeError(f"a key of type {type(key).__qualname__} cannot be written as JSON")
