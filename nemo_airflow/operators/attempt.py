"""Which attempt at its job a task's try is: the memory by which a job is submitted exactly once.

The record lives in the task's state store and is written *before* the job is submitted. So a try
that finds a record knows the key of what an earlier try may have submitted:

- An earlier try was cut off (its worker died): same key, the job is found again, or submitted if
  it never was.
- An earlier try saw its job fail: the record is consumed, and this try is a new attempt.
- The task was cleared: Airflow then raises ``max_tries``, a retry does not. A new attempt; the old
  job, should it still run, is ended.
- The config or the executor changed meanwhile: another digest, so another job. A new attempt; the old job, should it
  still run, is ended where it runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

STORE_KEY = "nemo_job"


class StateStore(Protocol):
    """The part of Airflow's task state store that is used."""

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the stored value."""

    def set(self, key: str, value: Any) -> None:
        """Stores a value."""


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attempt at a task's job.

    Attributes:
        number: 1 for the first.
        key: The job's key.
        digest: Digest of what is run and where; another digest is another job.
        max_tries: The task's ``max_tries`` when the attempt was begun.
        consumed: Whether a try has seen how the job ended without success.
        executor: JSON form of the executor that the job was submitted to; None in records of earlier releases.
        package: What is told of the package that was submitted; None without one, and in records of earlier releases.
        kept: Where the artifacts that the job returned are kept, by digest; None until all its outputs are kept, so
            that its back-end may let go of them.
    """

    number: int
    key: str
    digest: str
    max_tries: int
    consumed: bool = False
    executor: Mapping[str, Any] | None = None
    package: Mapping[str, Any] | None = None
    kept: Mapping[str, str] | None = None


def recall(store: StateStore) -> Attempt | None:
    """Returns the attempt that an earlier try of this task noted, or None."""
    data = store.get(STORE_KEY)
    return Attempt(**data) if isinstance(data, dict) else None


def remember(store: StateStore, attempt: Attempt) -> None:
    """Notes the attempt. To be done before the job is submitted."""
    store.set(STORE_KEY, dataclasses.asdict(attempt))


def consume(store: StateStore, key: str) -> None:
    """Notes that the job's failure was seen, so that the next try is a new attempt."""
    attempt = recall(store)
    if attempt is not None and attempt.key == key:
        remember(store, dataclasses.replace(attempt, consumed=True))


def note_kept(store: StateStore, key: str, addresses: Mapping[str, str]) -> None:
    """Notes that a job's outputs are kept, and where its artifacts; before its back-end lets go of them."""
    attempt = recall(store)
    if attempt is not None and attempt.key == key:
        remember(store, dataclasses.replace(attempt, kept=dict(addresses)))


def find_kept(store: StateStore, key: str) -> Mapping[str, str] | None:
    """Returns where a try has kept the artifacts of a job, by digest; None if none has kept its outputs."""
    attempt = recall(store)
    return attempt.kept if attempt is not None and attempt.key == key else None


def continues(earlier: Attempt | None, *, digest: str, max_tries: int) -> bool:
    """Returns whether this try goes on with the earlier attempt's job."""
    return earlier is not None and not earlier.consumed and earlier.digest == digest and earlier.max_tries == max_tries
