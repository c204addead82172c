"""Reads the tags of a plan that represent one value, such as ``{"_path_": "/data"}``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any


def _float(text: str) -> float:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text]


def _bytes(text: str) -> bytes:
    import base64

    return base64.b64decode(text, validate=True)


def _path(text: str) -> object:
    import pathlib

    return pathlib.Path(text)


def _datetime(text: str) -> object:
    import datetime

    return datetime.datetime.fromisoformat(text)


def _date(text: str) -> object:
    import datetime

    return datetime.date.fromisoformat(text)


def _time(text: str) -> object:
    import datetime

    return datetime.time.fromisoformat(text)


def _timedelta(seconds: object) -> object:
    import datetime

    if isinstance(seconds, str):  # seconds and six decimals, where a float has not as many digits
        whole, _, decimals = seconds.partition(".")
        if len(decimals) != 6:
            raise ValueError(seconds)
        return datetime.timedelta(microseconds=int(whole + decimals))
    return datetime.timedelta(seconds=seconds)  # type: ignore[arg-type]  # a number: it was checked


def _decimal(text: str) -> object:
    import decimal

    return decimal.Decimal(text)


def _artifact(fields: Mapping[str, Any]) -> object:
    from nemo_airflow.language.artifact import Artifact

    return Artifact.from_json(fields)


# Imported when needed: a job without these starts sooner.
SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "_float_": _float,
    "_bytes_": _bytes,
    "_path_": _path,
    "_datetime_": _datetime,
    "_date_": _date,
    "_time_": _time,
    "_timedelta_": _timedelta,
    "_decimal_": _decimal,
    "_artifact_": _artifact,
}
"""Readers of the tags' values."""
