"""The values that pass between the subpackages: a job, its package, its handle and its status.

All are frozen, and all have a plain JSON form, because each of them crosses a process
boundary: worker to job, worker to triggerer, triggerer to metadata database.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any

JOB_VERSION = 1
"""Version of the JSON form of :class:`Job`, which is what the runner reads in the job."""


class JobState(enum.StrEnum):
    """The state of a job, the same for every back-end."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """The back-end does not show the job now. Becomes LOST only after several misses."""
    LOST = "lost"
    """The job disappeared without an end mark."""

    @property
    def is_final(self) -> bool:
        """Whether the state cannot change any more."""
        return self in _FINAL


_FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.LOST})


class FailureKind(enum.StrEnum):
    """Why a job did not succeed, for messages and for retry policies."""

    USER_ERROR = "user_error"
    OUT_OF_MEMORY = "out_of_memory"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node_failure"
    TIMEOUT = "timeout"
    IMAGE = "image"
    PACKAGE = "package"
    QUOTA = "quota"
    OUTPUTS = "outputs"
    """The job has succeeded, and its outputs could not be kept: the next try keeps them, and runs no job."""
    LOST = "lost"
    CANCELLED = "cancelled"
    ARTIFACT = "artifact"
    FETCH = "fetch"
    """The job could not fetch from the shared store what it is given; nothing of it has run."""

    @classmethod
    def parse(cls, text: str) -> FailureKind:
        """Returns the kind of a name; USER_ERROR for a name of a newer version.

        Jobs, triggerers and workers are not updated at the same time: an unknown name must not fail its reader.
        """
        try:
            return cls(text)
        except ValueError:
            return cls.USER_ERROR


class _Plain:
    """JSON forms for the frozen dataclasses below."""

    def to_json(self) -> dict[str, Any]:
        """Returns the value as plain JSON types; keys are the field names."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, _Plain):
        return value.to_json()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


class Archive(typing.NamedTuple):
    """One file that a package is made of, or that an artifact travels as.

    Attributes:
        digest: Identifies it in a store, together with the format.
        format: ``tar.gz`` or ``tar.zst``; ``file`` for an artifact that is a single file, as it is.
        size: Bytes of the file.
        name: Its file name in a job's folder.
        origin: Where a host that ran the job that made it may have it still, below the folder of jobs; or empty.
        is_fetched: Whether the job fetches it from the shared store by itself, so that it is not sent.
    """

    digest: str
    format: str
    size: int
    name: str
    origin: str = ""
    is_fetched: bool = False


@dataclasses.dataclass(frozen=True)
class Package(_Plain):
    """An archive of code, identified by its content.

    It may consist of two archives: an earlier package, and the changes since. The digest identifies the whole.

    Attributes:
        digest: SHA-256 of the content, in hex: of names, modes and bytes, not of the archive file.
        format: ``tar.gz`` or ``tar.zst``.
        size: Bytes of the archive file, or of both.
        commit: Full id of its git commit, or empty.
        dirty: Whether uncommitted changes are in it.
        patch: Those changes as a unified diff, or empty. Bytes that are not UTF-8 are surrogates in it, as
            ``surrogateescape`` makes them.
        origin: The repository's remote address without credentials, or empty.
        base: Digest of the package that is unpacked before the changes, or empty where there is one archive.
        base_size: Bytes of that package's archive.
        parts: The parts of a package with several: ``prefix``, ``kind``, ``commit``, ``origin`` and
            ``subpath``. The patch then has a section for each, with paths as they are in the package.
        included: Files in it that git does not track, by their path in the package, with the id that git gives their
            bytes. They are in neither the commit nor the patch.
        patch_digest: SHA-256 of the patch's bytes, in hex, or empty where there is none.
        excluded: Patterns of the files of the commit that are not in it.
        keeps_patch_apart: Whether its patch holds a secret, and stays on the machine that made it.
        branch: Name of the git branch, or empty.
        is_fetched: Whether the job fetches its archives from the shared store by itself, so that they are not sent.
    """

    digest: str
    format: str = "tar.gz"
    size: int = 0
    commit: str = ""
    dirty: bool = False
    patch: str = ""
    origin: str = ""
    base: str = ""
    base_size: int = 0
    parts: tuple[Mapping[str, str], ...] = ()
    included: Mapping[str, str] = dataclasses.field(default_factory=dict)
    patch_digest: str = ""
    excluded: tuple[str, ...] = ()
    keeps_patch_apart: bool = False
    branch: str = ""
    is_fetched: bool = False

    @property
    def stored_patch(self) -> str:
        """The name of its patch beside it in a store, or empty where there is none."""
        return changes_name(self.digest, self.patch_digest) if self.patch_digest else ""

    @property
    def archives(self) -> tuple[Archive, ...]:
        """Its archives, in the order in which they are unpacked."""
        name = f"package.{self.format}"
        if not self.base:
            return (Archive(self.digest, self.format, self.size, name, "", self.is_fetched),)
        changes = changes_name(self.digest, self.base)
        return (
            Archive(self.base, self.format, self.base_size, f"package.base.{self.format}", "", self.is_fetched),
            Archive(changes, self.format, self.size - self.base_size, name, "", self.is_fetched),
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Package:
        """The inverse of ``to_json``."""
        return cls(**{**data, **{name: tuple(data.get(name) or ()) for name in ("parts", "excluded")}})


def without_patch(package: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the public, small JSON form of a package.

    A patch may contain secrets, so its SHA-256 replaces it; the number of included files replaces their list.
    """
    shown = dict(package)
    if included := shown.pop("included", {}):
        shown["included_files"] = len(included)
    for name in ("patch_digest", "excluded", "keeps_patch_apart", "branch", "is_fetched"):
        if not shown.get(name):
            shown.pop(name, None)
    if patch := shown.pop("patch", ""):
        shown["patch_digest"] = hashlib.sha256(str(patch).encode("utf-8", "surrogateescape")).hexdigest()
    return shown


PATCH = "patch"
"""Format of a package's patch in a store."""


def is_patch(name: str) -> bool:
    """Returns whether a file of a store is the patch of a package."""
    return name.endswith(f".{PATCH}")


BASE_DIGITS = 16
"""Digits of the base's digest in the name of an archive of changes."""


def changes_name(digest: str, base: str) -> str:
    """Returns the name of the archive with the changes since another package, or of a patch, by its digest."""
    return f"{digest}-{base[:BASE_DIGITS]}"


def shipped(package: Package | None, inputs: Sequence[Archive]) -> tuple[Archive, ...]:
    """Returns all archives that are sent to a job, in their order: the last one has bytes, if any has."""
    by_size = sorted(inputs, key=lambda archive: (archive.size, archive.name))
    every = (*by_size, *(package.archives if package is not None else ()))
    return tuple(archive for archive in every if not archive.is_fetched)


@dataclasses.dataclass(frozen=True)
class Job(_Plain):
    """A job, apart from where it runs. The runner reads its JSON form.

    Attributes:
        key: Identifies the job everywhere; see :func:`nemo_airflow.keys.job_key`. At most 63 characters
            of ``[a-z0-9-]``, so that it can name a container, a pod or a Slurm job.
        name: Its name in lists, for people.
        plan: The config as a plan; see :mod:`nemo_airflow.config.plan`.
        allow: Targets that the runner may import, besides those in the package: exact dotted names,
            or prefixes that end with a dot.
        package: The code to unpack into the job's working directory, or None.
        env: Environment variables to set for the job.
        time_limit: Seconds after which the runner ends the job, or None.
        grace: Seconds between SIGTERM and SIGKILL when the job is ended early.
        launch: Command line of a launcher that starts the job's processes, with the placeholders of
            :func:`nemo_airflow.runner.launch_command.command`; empty for a job of one process.
        outputs: Glob patterns, relative to the job's working directory, of files to keep, besides
            those under its output directory.
        heartbeat: Seconds between heartbeat records.
        sample_interval: Seconds between resource samples; 0 turns them off.
        labels: Where the job comes from (``dag_id``, ``run_id``, ``task_id`` ...).
        secret_env: Environment variables that are secrets: where the value comes from, in words, by the name.
        inputs: The archives of the artifacts in the plan.
        run_id: The job's run in the tracker, or empty.
        secrets: Places of secrets, which the runner masks in all output of the job: for each the keys from this
            form down to a text, then the start and end in it.
        description: What it does, for people, as Markdown.
        run_description: The same of the whole DAG run.
        earlier: Keys of the earlier attempts whose checkpoints it goes on from, the newest first.
        checkpoint: The same where the shared store has them: the ``artifact``, and the ``blobs`` that it consists of.
        run_key: The key by which the tracker finds its run; its own when empty, that of the attempt which it continues.
        asked: What was asked for besides, for its run to be reproduced: the public JSON form of its ``executor``, and
            its ``collector``.
        version: Version of this form.
    """

    key: str
    name: str
    plan: Mapping[str, Any]
    allow: tuple[str, ...] = ()
    package: Package | None = None
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    time_limit: float | None = None
    grace: float = 30.0
    launch: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    heartbeat: float = 30.0
    sample_interval: float = 10.0
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret_env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    inputs: tuple[Archive, ...] = ()
    run_id: str = ""
    secrets: tuple[tuple[Any, ...], ...] = ()
    description: str = ""
    run_description: str = ""
    asked: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    earlier: tuple[str, ...] = ()
    checkpoint: Mapping[str, Any] | None = None
    run_key: str = ""
    version: int = JOB_VERSION

    @property
    def archives(self) -> tuple[Archive, ...]:
        """See :func:`shipped`."""
        return shipped(self.package, self.inputs)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        """The inverse of ``to_json``."""
        fields = dict(data)
        fields["allow"] = tuple(fields.get("allow") or ())
        fields["launch"] = tuple(fields.get("launch") or ())
        fields["outputs"] = tuple(fields.get("outputs") or ())
        fields["earlier"] = tuple(fields.get("earlier") or ())
        fields["inputs"] = tuple(Archive(*each) for each in fields.get("inputs") or ())
        fields["secrets"] = tuple(tuple(place) for place in fields.get("secrets") or ())
        if fields.get("package") is not None:
            fields["package"] = Package.from_json(fields["package"])
        return cls(**fields)

    def dumps(self) -> str:
        """Returns the canonical JSON text for the runner: sorted keys, no spaces, the same in every process.

        It contains neither the descriptions, what was asked for besides and the key of its run, nor the package's patch
        and its list of included files: no job needs them, and they may be too large for a back-end.
        """
        package = dataclasses.replace(self.package, patch="", included={}) if self.package is not None else None
        data = dataclasses.replace(self, package=package).to_json()
        for name in ("description", "run_description", "asked", "run_key"):
            del data[name]
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclasses.dataclass(frozen=True)
class JobHandle(_Plain):
    """Identifies a submitted job to its back-end, in any process.

    Attributes:
        key: The job's key.
        kind: The executor's kind, for example ``local`` or ``slurm``.
        id: The back-end's own id. Ids are reused: alone it does not identify a job.
        cluster: Which of several back-ends of this kind: host name, context, address.
        submitted_at: Seconds since the epoch.
    """

    key: str
    kind: str
    id: str
    cluster: str = ""
    submitted_at: float = 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JobHandle:
        """The inverse of ``to_json``."""
        return cls(**data)


@dataclasses.dataclass(frozen=True)
class JobStatus(_Plain):
    """The status of a job on its back-end.

    Attributes:
        state: See :class:`JobState`.
        exit_code: The job's exit code; 128 + n if signal n ended it; None if not known.
        failure: Why it did not succeed, if it did not.
        reason: The back-end's own words, in one line.
    """

    state: JobState
    exit_code: int | None = None
    failure: FailureKind | None = None
    reason: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JobStatus:
        """The inverse of ``to_json``."""
        fields = dict(data)
        fields["state"] = JobState(fields["state"])
        if fields.get("failure"):
            fields["failure"] = FailureKind.parse(fields["failure"])
        return cls(**fields)


JsonObject: typing.TypeAlias = dict[str, Any]
