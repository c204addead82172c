"""Writes values of Python's own types as tags of a plan, for configs here and for those that the job resolved."""

from __future__ import annotations

import base64
import datetime
import decimal
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Dict, Optional, Tuple, Type, Union


def tag_value(value: Any) -> Optional[Dict[str, Any]]:
    """Returns the node of a path, date, time, duration, decimal, artifact or bytes; None for anything else."""
    for kind, tag, write in _TAGS:
        if isinstance(value, kind):
            return {tag: write(value)}
    if isinstance(value, os.PathLike):
        from nemo_airflow.language.artifact import Artifact

        return value.to_json() if isinstance(value, Artifact) else None
    return None


def _seconds(value: datetime.timedelta) -> Union[float, str]:
    seconds = value.total_seconds()
    if datetime.timedelta(seconds=seconds) == value:
        return seconds
    microseconds = value // datetime.timedelta(microseconds=1)
    sign = "-" if microseconds < 0 else ""
    return f"{sign}{abs(microseconds) // 1_000_000}.{abs(microseconds) % 1_000_000:06d}"


_TAGS: Sequence[Tuple[Type[Any], str, Callable[[Any], Any]]] = (
    (bytes, "_bytes_", lambda value: base64.b64encode(value).decode()),
    (pathlib.PurePath, "_path_", str),
    (datetime.datetime, "_datetime_", datetime.datetime.isoformat),
    (datetime.date, "_date_", datetime.date.isoformat),
    (datetime.time, "_time_", datetime.time.isoformat),
    (datetime.timedelta, "_timedelta_", _seconds),
    (decimal.Decimal, "_decimal_", str),
)
