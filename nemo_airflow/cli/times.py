"""Reads the times that commands are given."""

from __future__ import annotations

import datetime
import re
import time

from nemo_airflow.exceptions import SettingsError

_AGO = re.compile(r"(\d+)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_time(text: str) -> float:
    """Returns the time that ``7d``, a time ago, or ``2026-11-01`` and ``2026-11-01T12:00`` mean.

    Returns:
        Seconds since the epoch. A date without a zone is of this machine's.

    Raises:
        SettingsError: It is no time.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return time.time() - int(ago[1]) * _SECONDS[ago[2]]
    try:
        return datetime.datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError):
        raise SettingsError(
            f"{text!r} is not a time: write 7d, 12h or 30m for a time ago, or a date such as 2026-11-01"
        ) from None
