"""What makes two jobs the same, and what a tracker knows of earlier ones: a task may reuse the run of one."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from nemo_airflow.job import JobHandle
from nemo_airflow.tracking.base import RunRef

REUSE = "nemo_airflow.reuse"
"""Tag of a run with what is compared, as one digest; its parts are tags below it."""

WITHIN = "nemo_airflow.reuse_within"
"""Tag of a run whose task asked for an earlier one: how old that may be, in seconds, or :data:`ANY_AGE`."""

ANY_AGE = "any"

REUSED_BY = "nemo_airflow.reused_by."
"""Beginning of the tags of a run that name the tasks that have reused it."""

RESULT = "nemo_airflow/result.json"
"""Path in a run of what the job's function returned."""


_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def age_text(seconds: float) -> str:
    """Returns a time span for people, in the largest unit of which there are two."""
    size, unit = next((each for each in _UNITS if seconds >= 2 * each[0]), _UNITS[-1])
    return f"{seconds / size:.0f} {unit}"


@dataclasses.dataclass(frozen=True)
class Identity:
    """What two jobs have to have in common for one to be taken for the other.

    Attributes:
        plan: Digest of the config, without what its artifacts are.
        package: Digest of the code, or empty where it is in the image.
        inputs: Digest of the artifacts that are given, by their digests.
        image: The image in which the job runs, or what stands for it.
        env: Digest of the environment variables that its author gives it.
    """

    plan: str
    package: str
    inputs: str
    image: str
    env: str

    @property
    def digest(self) -> str:
        """All of it, as one digest."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def to_tags(self) -> dict[str, str]:
        """Returns the tags of a run."""
        return {REUSE: self.digest, **{f"{REUSE}.{name}": value for name, value in dataclasses.asdict(self).items()}}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Identity | None:
        """Returns what a run has recorded, or None where it has not."""
        if REUSE not in tags:
            return None
        return cls(**{field.name: tags.get(f"{REUSE}.{field.name}", "") for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class EarlierRun:
    """A run that has succeeded.

    Attributes:
        ref: The run.
        handle: Its job.
        ended_at: When it ended, in seconds since the epoch.
        result: What its function returned, as plain JSON types.
    """

    ref: RunRef
    handle: JobHandle
    ended_at: float
    result: Any


@dataclasses.dataclass(frozen=True)
class Asker:
    """The task that asks, the same at each of its tries.

    Attributes:
        dag_id: Its DAG.
        run_id: The run of the DAG.
        task_id: The task.
        map_index: Which of the mapped ones, or ``-1``.
        installation: Which Airflow has it.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: str
    installation: str = ""

    @property
    def digest(self) -> str:
        """Names it in a tag or parameter."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:32]

    def __str__(self) -> str:
        mapped = f"[{self.map_index}]" if self.map_index != "-1" else ""
        return f"task {self.task_id}{mapped} of DAG {self.dag_id}, run {self.run_id}"


@dataclasses.dataclass(frozen=True)
class Claim:
    """The right of one task to run what several ask for.

    Attributes:
        id: Names it in the tracker.
        identity: The digest of what is to run.
        holder: The digest of the task that has it.
        who: That task, for people.
        since: When it was made, in seconds since the epoch.
    """

    id: str
    identity: str
    holder: str
    who: str
    since: float


class EarlierRuns(abc.ABC):
    """Finds runs that can be reused, and lets one of several tasks run what none of them finds.

    Methods block, and raise :class:`~nemo_airflow.exceptions.TrackingError`.
    """

    @abc.abstractmethod
    def find(self, identity: Identity, since: float | None) -> Iterator[EarlierRun]:
        """Yields the runs that have succeeded with all of this and whose results are recorded, the newest first.

        Args:
            identity: What has to be the same.
            since: They ended then or later, in seconds since the epoch; None for any time.
        """

    @abc.abstractmethod
    def claim(self, identity: Identity, asker: Asker) -> Claim:
        """Returns who is to run this: the task that asks, if no other has asked before and not released its claim."""

    @abc.abstractmethod
    def holds(self, claim: Claim) -> bool:
        """Returns whether a claim of another task still stands: it is not released, and the task's job may come."""

    @abc.abstractmethod
    def drop(self, claim: Claim) -> None:
        """Ends a claim that does not stand any more; again, it changes nothing."""

    @abc.abstractmethod
    def release(self, asker: Asker) -> None:
        """Ends all claims of a task."""

    @abc.abstractmethod
    def note_reuse(self, run: EarlierRun, asker: Asker) -> None:
        """Notes on a run which task has reused it."""
