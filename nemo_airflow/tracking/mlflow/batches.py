"""Writes a batch of which a store refuses some items, so that each refused item costs itself alone.

A store refuses a batch as a whole. A refused batch is halved until the refused items are alone, which takes about
2 log2(size) requests for each. Where nothing is accepted, the search ends after a bounded number of requests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.tracking.base import PartlyRefusedError
from nemo_airflow.tracking.mlflow.fields import KEY
from nemo_airflow.tracking.mlflow.store import INTERNAL, Store

T = TypeVar("T")

_SAMPLES = 16
"""Items that are refused alone, with none accepted, after which as many others are tried and then none."""

_NAMED = 5
"""Refused items that a message names."""


@dataclasses.dataclass(frozen=True)
class Refusal(Generic[T]):
    """An item that the store refused, and why."""

    item: T
    reason: str


def write_accepted(
    store: Store, run_id: str, items: Sequence[T], write: Callable[[Sequence[T]], None]
) -> list[Refusal[T]]:
    """Writes all items that the store accepts; returns the refused ones.

    Args:
        store: The store.
        run_id: The run.
        items: What to write.
        write: Writes some of the items with one request.

    Raises:
        TrackingError: The store cannot be reached, or refuses whatever is written to this run.
    """
    if not items:
        return []
    try:
        write(items)
        return []
    except TrackingError as error:
        if not _may_be_the_items(store, run_id, error):
            raise
        if len(items) == 1:
            return [Refusal(items[0], str(error))]
    return _halve(items, write)


def refuse(refused: Sequence[Refusal[T]], total: int, name: Callable[[T], str]) -> None:
    """Raises an error that names refused items, if there are any.

    Raises:
        PartlyRefusedError: There are.
    """
    if not refused:
        return
    names = ", ".join(name(refusal.item) for refusal in refused[:_NAMED])
    more = f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
    kept = f"the other {total - len(refused)} of {total} are recorded" if len(refused) < total else "none is recorded"
    raise PartlyRefusedError(f"{names}{more} ({kept}): {refused[0].reason}", len(refused))


def write_values(
    store: Store, run_id: str, values: Mapping[str, str], write: Callable[[dict[str, str]], None]
) -> list[Refusal[tuple[str, str]]]:
    """Writes all tags or parameters that the store accepts; returns the refused ones; see :func:`write_accepted`."""
    return write_accepted(store, run_id, list(values.items()), lambda part: write(dict(part)))


def _halve(items: Sequence[T], write: Callable[[Sequence[T]], None]) -> list[Refusal[T]]:
    """Writes a batch that was refused as a whole."""
    refused: list[Refusal[T]] = []
    accepted = sampled = False
    middle = len(items) // 2
    waiting = [items[middle:], items[:middle]]
    while waiting:
        part = waiting.pop()
        try:
            write(part)
            accepted = True
        except TrackingError as error:
            if not _is_refusal(error):
                raise
            if len(part) == 1:
                refused.append(Refusal(part[0], str(error)))
            else:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
        if not accepted and not sampled and len(refused) >= _SAMPLES:
            sampled = True
            left = [item for part in reversed(waiting) for item in part]
            found = _write_one(left, write)
            if found is None:
                return refused + [Refusal(item, refused[0].reason) for item in left]
            accepted, waiting = True, [left[found + 1 :], left[:found]]
            waiting = [part for part in waiting if part]
    return refused


def _write_one(items: Sequence[T], write: Callable[[Sequence[T]], None]) -> int | None:
    """Writes the first accepted item of a sample; returns its index, None if all are refused."""
    for index in range(0, len(items), max(len(items) // _SAMPLES, 1)):
        try:
            write([items[index]])
            return index
        except TrackingError as error:
            if not _is_refusal(error):
                raise
    return None


def _is_refusal(error: TrackingError) -> bool:
    # MLflow calls what it cannot store an internal error too; an outage of its database has another code.
    return not error.transient or error.code == INTERNAL


def _may_be_the_items(store: Store, run_id: str, error: TrackingError) -> bool:
    """Returns whether another write to the run succeeds after an error: that of a tag which it has already."""
    if not _is_refusal(error):
        return False
    try:
        tags = store.run(run_id).tags
        store.log(run_id, tags={KEY: tags[KEY]} if KEY in tags else {})
        return True
    except TrackingError:
        return False
