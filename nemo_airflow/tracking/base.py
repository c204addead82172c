"""The interface of a tracker, which records jobs, and its values."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.job import Job, JobHandle, JobStatus

if TYPE_CHECKING:
    from nemo_airflow.tracking.reuse import EarlierRuns

OUTPUTS_DIGEST = "nemo_airflow.outputs_digest"
"""Tag of a run with the digest of its outputs in the shared store."""


ARTIFACT = "nemo_airflow.artifact."
"""Beginning of the tags with the artifacts that a job returned, by name."""

ARTIFACT_DIGESTS = "nemo_airflow.artifact_digests.{}"
"""Tags with the digests of all of these, some in each: a collection of what nobody names spares them."""

INPUT = "nemo_airflow.input."
"""Beginning of the tags with the artifacts that a job was given, by name: their runs and digests."""

ARTIFACT_INPUT = "nemo_airflow.artifact"
"""Source type of an input that is an artifact of another run."""

INPUT_RUN = "nemo_airflow.input_run."
"""Beginning of the tags with the runs whose artifacts a job was given, by run id: to search for them."""

ATTEMPTS = "nemo_airflow.attempts"
"""Tag of a run with the keys of its job and of those from whose checkpoints it goes on, the newest first."""

RESUMES = "nemo_airflow.resumes"
"""Tag of a run with the id of the run from whose checkpoint it goes on with other values."""

PHASES = "nemo_airflow.phases"
"""Tag of a run with the phases of its jobs, as compact JSON."""

IMAGE_DIGEST = "nemo_airflow.image_digest"
"""Tag of a run with what names the content of the image that its job ran in."""

REPRODUCES = "nemo_airflow.reproduces"
"""Tag of a run with the id of the run that it reproduces."""

REPRODUCED_BY = "nemo_airflow.reproduced_by."
"""Beginning of the tags of a run with the runs that reproduce it, by run id: each one's job."""

REPRODUCTION = "nemo_airflow.reproduction"
"""Tag of a reproduction with what differs from the original, in one line."""

VARIATION = "nemo_airflow.variation"
"""Tag of a reproduction with the overrides by which it differs on purpose."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """One point of a metric.

    Attributes:
        name: For example ``loss``, or ``system/rss_bytes``.
        value: A float; NaN and infinities are allowed.
        step: The user's step, 0 when none was given.
        timestamp: Seconds since the epoch, stamped in the job.
    """

    name: str
    value: float
    step: int
    timestamp: float


@dataclasses.dataclass(frozen=True)
class RunInput:
    """A data set that a run reads: an artifact that it was given, or one that its job names.

    Attributes:
        name: Its name.
        digest: What tells its versions apart.
        source: Where it is from, as JSON.
        source_type: What this JSON is: ``s3``, ``http``, ``local`` as for MLflow, or :data:`ARTIFACT_INPUT`.
        context: What it is for, such as ``training``; or empty.
    """

    name: str
    digest: str
    source: str
    source_type: str
    context: str = ""


@dataclasses.dataclass(frozen=True)
class RunRef:
    """Names a tracking run in any process.

    Attributes:
        uri: Address of the tracking store, without credentials.
        experiment_id: The experiment's id.
        run_id: This job's run.
        parent_id: The run of the whole DAG run, or empty.
        url: A page to look at, or empty.
        env: Variables that make runs of user code in the job children of this one; empty where the
            job cannot reach the store.
        attempt: Key of the job whose records these are, where the run is that of an earlier attempt; else empty.
    """

    uri: str
    experiment_id: str
    run_id: str
    parent_id: str = ""
    url: str = ""
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    attempt: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the reference as plain JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunRef:
        """The inverse of ``to_json``."""
        return cls(**data)


class UploadWatch:
    """Is told how far an upload has come, from any thread. This one does nothing."""

    def sent(self, size: int) -> None:
        """So many bytes more were sent."""

    def stored(self, path: str) -> None:
        """The file of this path in the run is stored: it need not be sent again."""


UNWATCHED = UploadWatch()


class PartlyRefusedError(TrackingError):
    """The tracker refused parts of a record for good, which the message names; the other parts are recorded.

    Args:
        message: The refused parts, and why, in one line.
        count: Number of refused parts.

    Attributes:
        documents: The record's documents; see :class:`Tracker`.
    """

    def __init__(self, message: str, count: int) -> None:
        self.count = count
        self.documents: Mapping[str, str] = {}
        super().__init__(message)


class Tracker(abc.ABC):
    """Records runs. Every method blocks, may be called from any thread, and may be called again.

    A tracker never fails a job: callers go on without it when a method raises
    :class:`~nemo_airflow.exceptions.TrackingError`. Only where the outputs of a job cannot be stored, its task fails,
    and its next try stores them.

    Records (parameters, tags, points, the end) and files are separate, because they often go to different
    places, one of which may be unreachable. A method that records something returns documents to store as
    files: texts by their path in the run. The caller passes these to :meth:`documents`. A method that has recorded
    all but some parts raises :class:`PartlyRefusedError`.
    """

    kind: ClassVar[str]
    """Names the tracker in its JSON form and in the entry-point group ``nemo_airflow.trackers``."""

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Returns the tracker as plain JSON types with its ``kind``, without any secret.

        :func:`nemo_airflow.tracking.tracker_from_json` is the inverse.
        """

    def pin(self) -> Tracker:
        """Returns a tracker with the address that this one has here, for a process whose environment has another."""
        return self

    def earlier_runs(self) -> EarlierRuns | None:
        """Returns what finds runs that can be reused; None for a tracker that cannot search.

        Raises:
            TrackingError: The store cannot be opened.
        """
        return None

    @abc.abstractmethod
    def open(
        self, job: Job, *, experiment: str, parent: str, shares_filesystem: bool, at: float | None = None
    ) -> RunRef:
        """Finds or creates the run of this job (by its key), below the parent run of that name.

        Args:
            job: The job; its plan gives the parameters, its package and labels give tags.
            experiment: Name of the experiment; created if needed.
            parent: Key of the parent run; tasks that start together share one parent.
            shares_filesystem: Whether the job sees this machine's files.
            at: When the job's run began, seconds since the epoch: what was recorded of a job may arrive hours later. A
                run that ended after that is not opened again. None: now.
        """

    @abc.abstractmethod
    def started(self, ref: RunRef, handle: JobHandle, script: str) -> Mapping[str, str]:
        """Records where the job runs. Its document is the script or manifest that was sent."""

    @abc.abstractmethod
    def config(self, ref: RunRef, plan: Mapping[str, Any]) -> Mapping[str, str]:
        """Records the config as the job resolved it, as parameters. Its document is the plan."""

    @abc.abstractmethod
    def environment(self, ref: RunRef, environment: Mapping[str, Any]) -> Mapping[str, str]:
        """Records the job's environment: Python, packages, devices, host. Its document is the whole environment."""

    @abc.abstractmethod
    def tag(self, ref: RunRef, tags: Mapping[str, str]) -> None:
        """Sets tags; replaces existing ones."""

    def inputs(self, ref: RunRef, inputs: Sequence[RunInput]) -> None:
        """Records data sets that the job reads; again, it changes nothing. A tracker without them does nothing."""
        return

    @abc.abstractmethod
    def metrics(self, ref: RunRef, metrics: Sequence[Metric], mark: int) -> None:
        """Records points, and that the stream was read up to ``mark`` bytes.

        A replay duplicates nothing: points whose mark is already recorded are skipped. A mark of
        0 is independent of the stream: the points are recorded, and the mark stays.
        """

    @abc.abstractmethod
    def mark(self, ref: RunRef) -> int:
        """Returns the highest mark recorded for the run; 0 if there is none."""

    @abc.abstractmethod
    def documents(self, ref: RunRef, texts: Mapping[str, str]) -> None:
        """Stores texts as files, by their path in the run; replaces existing ones."""

    @abc.abstractmethod
    def artifacts(self, ref: RunRef, files: Mapping[str, Path], watch: UploadWatch = UNWATCHED) -> None:
        """Stores files by their path in the run; replaces existing ones.

        All are tried. Where some are stored and others refused for good, :class:`PartlyRefusedError` names these.

        Args:
            ref: The run.
            files: The files by their path in the run, with slashes.
            watch: Told of each file as soon as it is stored.
        """

    def artifact_root(self, ref: RunRef) -> str:
        """Returns the address of the run's files, if somebody else than the tracker may write there; else empty."""
        return ""

    def artifact_path(self, path: str) -> str:
        """Returns the path that a file has below that address."""
        return path

    def model(self, ref: RunRef, name: str, folder: str) -> None:
        """Records a model that the job has made; again, it changes nothing. A tracker without them does nothing.

        Args:
            ref: The run.
            name: The model's name.
            folder: Folder of its files in the outputs of the job, which are kept later.
        """
        return

    def outputs_kept(self, ref: RunRef) -> None:
        """Is called when all outputs of the job are kept, and may be called again."""
        return

    @abc.abstractmethod
    def ended(self, ref: RunRef, status: JobStatus, *, error: str = "", at: float | None = None) -> Mapping[str, str]:
        """Records how the job ended; does not change a run that has already ended. Its document is the error.

        Args:
            ref: The run.
            status: How it ended.
            error: The job's error with its traceback, or empty.
            at: When it ended, seconds since the epoch. None: now.
        """

    def close_parent(self, ref: RunRef, *, succeeded: bool, at: float | None = None) -> None:
        """Ends the parent run if no other of its jobs runs; it has then the end of the last of them.

        A parent that failed stays so until a task is retried.

        Args:
            ref: The run of the job that has ended.
            succeeded: Whether it succeeded.
            at: When it ended, seconds since the epoch. None: now.
        """
        return
