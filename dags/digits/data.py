"""The UCI handwritten digits, treated as if they arrived over time from a scanner that wears out."""

from __future__ import annotations

import datetime
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WEEKS_A_YEAR = 52

RECENT_WEEKS = 8
"""Length of the window in which drift is looked for."""

HELD_OUT = 0.25
"""Share of samples that are never used for training. Not a parameter: all models are compared on the same digits."""


@dataclass(frozen=True)
class Data:
    """Which digits to use.

    Args:
        until: The day before which samples have arrived, as YYYY-MM-DD; the end of the data interval.
        weeks: Length of the window of training data before that day, in weeks, 1 to 52.
    """

    until: str
    weeks: int = 26

    def validate(self) -> None:
        """Checks what the types do not express."""
        datetime.date.fromisoformat(self.until)
        if not 1 <= self.weeks <= WEEKS_A_YEAR:
            raise ValueError(f"weeks={self.weeks} is not between 1 and {WEEKS_A_YEAR}")


def is_held_out(index: int) -> bool:
    """Returns whether a sample is held out for the evaluation: a fixed choice, by a hash of its number."""
    return zlib.crc32(str(index).encode()) % 10_000 < HELD_OUT * 10_000


def weeks_ago(index: int, until: datetime.date) -> int:
    """Returns how many whole weeks before a day a sample has arrived the last time.

    A sample arrives in one week of each year, again every year, so that there is data at any date.
    """
    last_whole_week = until.toordinal() // 7 - 1
    return (last_whole_week - zlib.crc32(f"week {index}".encode())) % WEEKS_A_YEAR


def has_arrived(index: int, until: datetime.date, weeks: int) -> bool:
    """Returns whether a sample arrived in the window."""
    return weeks_ago(index, until) < weeks


def wear(day: datetime.date) -> float:
    """Returns how worn the scanner is: 0 in January, when there is a new one, to almost 1 at the end of a year."""
    return (day.timetuple().tm_yday - 1) / 366


def training_set(data: Data) -> tuple[Any, Any]:
    """Returns images of shape (n, 64), values 0 to 16, and labels of shape (n,), of the window."""
    until = datetime.date.fromisoformat(data.until)
    return _scan(
        lambda index: has_arrived(index, until, data.weeks) and not is_held_out(index),
        lambda index: until - datetime.timedelta(weeks=weeks_ago(index, until)),
    )


def held_out_set(until: str) -> tuple[Any, Any]:
    """Returns images and labels of the held-out samples, all as the scanner shows them on a day."""
    day = datetime.date.fromisoformat(until)
    return _scan(is_held_out, lambda _: day)


def _scan(choose: Callable[[int], bool], day_of: Callable[[int], datetime.date]) -> tuple[Any, Any]:
    """Returns the chosen samples: a worn scanner shows them fainter, and more and more of them one pixel off."""
    import numpy as np
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    chosen = [index for index in range(len(labels)) if choose(index)]
    worn = np.array([wear(day_of(index)) for index in chosen])
    is_off = np.array([zlib.crc32(f"off {index}".encode()) % 1000 for index in chosen]) < 1000 * worn
    pixels = images[chosen].reshape(-1, 8, 8)
    pixels = np.where(is_off[:, None, None], np.roll(pixels, 1, axis=2), pixels)
    return (pixels * (1 - 0.4 * worn)[:, None, None]).reshape(-1, 64), labels[chosen]
