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

A new attempt goes on from the checkpoints of those before it, unless the task was cleared or its config changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from nemo_airflow.follow import Outcome
from nemo_airflow.job import FailureKind

STORE_KEY = "nemo_job"

_EARLIER = 50
"""Attempts that may have a checkpoint: those that are older have none that is still wanted."""


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
        plan: Digest of what is run, wherever.
        earlier: Keys of the attempts from whose checkpoints it goes on, the newest first.
        run_key: Key of the attempt whose run it continues; empty where it has a run of its own.
        chained: How many attempts before it have that run.
        goes_on: Whether the job has stopped before it was done, so that the next attempt continues its run.
        failures: How often the attempts up to this one have failed, by kind, since the task was last cleared.
    """

    number: int
    key: str
    digest: str
    max_tries: int
    consumed: bool = False
    executor: Mapping[str, Any] | None = None
    package: Mapping[str, Any] | None = None
    kept: Mapping[str, str] | None = None
    plan: str = ""
    earlier: tuple[str, ...] = ()
    run_key: str = ""
    chained: int = 0
    goes_on: bool = False
    failures: Mapping[str, int] = dataclasses.field(default_factory=dict)


def recall(store: StateStore) -> Attempt | None:
    """Returns the attempt that an earlier try of this task noted, or None."""
    data = store.get(STORE_KEY)
    return Attempt(**{**data, "earlier": tuple(data.get("earlier") or ())}) if isinstance(data, dict) else None


def take_over(attempt: Attempt, earlier: Attempt | None) -> Attempt:
    """Returns a new attempt with what it goes on from: checkpoints of the earlier ones, and perhaps their run."""
    if earlier is None or earlier.max_tries != attempt.max_tries:
        return attempt
    attempt = dataclasses.replace(attempt, failures=earlier.failures)
    if earlier.plan != attempt.plan:
        return attempt
    attempt = dataclasses.replace(attempt, earlier=(earlier.key, *earlier.earlier)[:_EARLIER])
    if not earlier.goes_on:
        return attempt
    return dataclasses.replace(attempt, run_key=earlier.run_key or earlier.key, chained=earlier.chained + 1)


def remember(store: StateStore, attempt: Attempt) -> None:
    """Notes the attempt. To be done before the job is submitted."""
    # Airflow takes lists, and no tuples.
    store.set(STORE_KEY, {**dataclasses.asdict(attempt), "earlier": list(attempt.earlier)})


def may_go_on(attempt: Attempt | None, outcome: Outcome, max_chain: int) -> bool:
    """Returns whether a job that has stopped before it was done is continued at once: it has saved its state.

    Args:
        attempt: Its attempt.
        outcome: How it ended.
        max_chain: How many attempts may follow each other so.
    """
    return has_stopped(outcome) and attempt is not None and attempt.chained + 1 < max_chain


def has_stopped(outcome: Outcome) -> bool:
    """Returns whether a job was told to end before it was done, and has saved its state."""
    return bool(outcome.checkpoint) and outcome.status.failure in (FailureKind.PREEMPTED, FailureKind.TIMEOUT)


def consume(store: StateStore, key: str, failure: FailureKind | None = None, *, goes_on: bool = False) -> None:
    """Notes that the job's failure was seen, so that the next attempt is a new one; it may continue its run."""
    attempt = recall(store)
    if attempt is not None and attempt.key == key:
        failures = dict(attempt.failures)
        if failure is not None and not attempt.consumed:
            failures[failure] = failures.get(failure, 0) + 1
        remember(store, dataclasses.replace(attempt, consumed=True, goes_on=goes_on, failures=failures))


def failures_before(store: StateStore, max_tries: int) -> dict[str, int]:
    """Returns how often the task's earlier attempts have failed since it was last cleared, for each kind of failure."""
    earlier = recall(store)
    known = earlier.failures if earlier is not None and earlier.max_tries == max_tries else {}
    return {str(kind): known.get(kind, 0) for kind in FailureKind}


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
