"""The UCI handwritten digits, treated as if they arrived over time."""

from __future__ import annotations

import datetime
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WEEKS_A_YEAR = 52

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


def has_arrived(index: int, until: datetime.date, weeks: int) -> bool:
    """Returns whether a sample arrived in the window.

    A sample arrives in one week of each year, again every year, so that there is data at any date.
    """
    last_whole_week = until.toordinal() // 7 - 1
    return (last_whole_week - zlib.crc32(f"week {index}".encode())) % WEEKS_A_YEAR < weeks


def training_set(data: Data) -> tuple[Any, Any]:
    """Returns images of shape (n, 64), values 0 to 16, and labels of shape (n,), of the window."""
    until = datetime.date.fromisoformat(data.until)
    return _select(lambda index: has_arrived(index, until, data.weeks) and not is_held_out(index))


def held_out_set() -> tuple[Any, Any]:
    """Returns images and labels of the held-out samples."""
    return _select(is_held_out)


def _select(choose: Callable[[int], bool]) -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    chosen = [index for index in range(len(labels)) if choose(index)]
    return images[chosen], labels[chosen]
