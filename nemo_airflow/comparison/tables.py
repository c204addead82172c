"""Values of several runs side by side: one row for each name, one place in it for each run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

ABSENT, UNKNOWN = -1, -2
"""Stand in :attr:`Row.of` for a run that has no such value, and for one of which it is not known whether it has."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A value of several runs.

    Attributes:
        name: What it is.
        values: Its different values, in the order of the runs that have them first.
        of: For each run the place of its value in these, or :data:`ABSENT` or :data:`UNKNOWN`.
    """

    name: str
    values: tuple[str, ...]
    of: tuple[int, ...]

    @property
    def differs(self) -> bool:
        """Whether the runs of which it is known do not all have the same."""
        return len({*self.of} - {UNKNOWN}) > 1


def make_rows(runs: Sequence[Mapping[str, str] | None]) -> list[Row]:
    """Returns the values of runs as rows, in the order of the names in the runs.

    Args:
        runs: The values of each run by name; None for a run of which they are not known.
    """
    names = dict.fromkeys(name for run in runs if run is not None for name in run)
    return [_row(name, runs) for name in names]


def _row(name: str, runs: Sequence[Mapping[str, str] | None]) -> Row:
    numbers: dict[str, int] = {}
    of = []
    for run in runs:
        value = run.get(name) if run is not None else None
        of.append(UNKNOWN if run is None else ABSENT if value is None else numbers.setdefault(value, len(numbers)))
    return Row(name, tuple(numbers), tuple(of))
