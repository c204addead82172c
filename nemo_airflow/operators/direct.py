"""What goes straight between a job and the shared store: the leave that it is given, and what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from nemo_airflow import connections, settings
from nemo_airflow.artifacts.checkpoints import keep_checkpoints
from nemo_airflow.artifacts.granting import offer
from nemo_airflow.artifacts.keeping import keep_stored_artifacts
from nemo_airflow.exceptions import NemoAirflowError, StoreError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.outputs_route import AUTO, WORKER
from nemo_airflow.executors.secret import Secret
from nemo_airflow.follow import Outcome
from nemo_airflow.job import Archive, Package
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.progress import Progress, size_text
from nemo_airflow.runner.fetching import signatures_in
from nemo_airflow.runner.secret_env import FETCH_GRANT, GRANT
from nemo_airflow.runner.upload_targets import secrets_in
from nemo_airflow.store.address import configured_store
from nemo_airflow.store.incoming import LONGEST, Incoming, Manifest, grant, lets_jobs_write
from nemo_airflow.store.shared import SharedStore
from nemo_airflow.tracking.passage import Passage
from nemo_airflow.tracking.run import TrackedRun
from nemo_airflow.tracking.stored_outputs import keep_stored, kept_files, pass_on

E = TypeVar("E", bound=Executor)

_MARGIN = 2 * 86400.0
"""Seconds, besides a job's time limit, for its queue and for its outputs."""

_UNREACHED_FOR = 86400.0
"""Seconds for which jobs get all from the worker where one could not fetch it."""


@dataclasses.dataclass(frozen=True)
class _Leave(Secret):
    """Stands for the leave that a job is given, where its other secrets are named."""

    @property
    def source(self) -> str:
        """See :attr:`Secret.source`."""
        return f"the shared store, for the job's {'outputs' if self.variable == GRANT else 'inputs'}"


def give_leave(
    executor: E, key: str, time_limit: float | None, warn: Callable[[str], None]
) -> tuple[E, dict[str, str]]:
    """Lets a job send its outputs into the shared store, if both can.

    Args:
        executor: Where the job is to run.
        key: Its key.
        time_limit: Its time limit in seconds, or None.
        warn: Called with why not, where that was asked for.

    Returns:
        The executor with one more secret, and the secret's value by its name; none where outputs go by the worker.
    """
    store = configured_store()
    machines = executor.nodes if executor.is_group else 1
    is_apart = executor.outputs_route == WORKER or not executor.takes_secrets
    if store is None or is_apart or (machines > 1 and not executor.collects_each):
        return executor, {}
    route = "" if executor.outputs_route == AUTO else str(executor.outputs_route)
    try:
        given = grant(store, key, _seconds(time_limit), route, machines)
    except NemoAirflowError as error:
        warn(f"the job cannot send its outputs to the store by itself, so the worker collects them: {error}")
        return executor, {}
    if not given:
        if route:
            warn(f"outputs_route={route!r} leads no job to the store {store.place.where}: the worker collects outputs")
        return executor, {}
    for hidden in secrets_in(given):
        connections.mask(hidden)
    secrets = {**executor.secrets, GRANT: _Leave(variable=GRANT)}
    return dataclasses.replace(executor, secrets=secrets), {GRANT: json.dumps(given)}


@dataclasses.dataclass(frozen=True)
class Fetching(Generic[E]):
    """How a job gets its package and its artifacts.

    Attributes:
        executor: Where it runs, with one more secret if it fetches anything.
        package: Its package, or None.
        archives: The archives of artifacts that it fetches, by digest.
        values: The value of that secret, by its name.
    """

    executor: E
    package: Package | None
    archives: Mapping[str, Archive] = dataclasses.field(default_factory=dict)
    values: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


def let_fetch(
    executor: E,
    plan: Mapping[str, Any],
    package: Package | None,
    time_limit: float | None,
    warn: Callable[[str], None],
    also: Sequence[Artifact] = (),
) -> Fetching[E]:
    """Lets a job fetch from the shared store, if both can, and no job there has failed to lately. Blocks.

    Args:
        executor: Where the job is to run.
        plan: The job's plan.
        package: Its package, or None.
        time_limit: Its time limit in seconds, or None.
        warn: Called with why not, where it could have been expected.
        also: Further artifacts that the job is given.
    """
    by_worker = Fetching(executor, package)
    store = configured_store()
    is_apart = executor.outputs_route == WORKER or not executor.takes_secrets or executor.shares_filesystem
    if store is None or is_apart or not _may_be_reached(_note_of(executor)):
        return by_worker
    route = "" if executor.outputs_route == AUTO else str(executor.outputs_route)
    try:
        shipped = package if executor.fetches_packages else None
        offered = offer(store, plan, shipped, _seconds(time_limit), route, also)
    except NemoAirflowError as error:
        warn(f"the job cannot fetch from the store by itself, so the worker sends what it is given: {error}")
        return by_worker
    urls = offered.grant["urls"].values()
    if not urls:
        return by_worker
    for hidden in (*urls, *signatures_in(urls)):
        connections.mask(hidden)
    if package is not None and offered.has_package:
        package = dataclasses.replace(package, is_fetched=True)
    secrets = {**executor.secrets, FETCH_GRANT: _Leave(variable=FETCH_GRANT)}
    return Fetching(
        dataclasses.replace(executor, secrets=secrets), package, offered.archives,
        {FETCH_GRANT: json.dumps(offered.grant)},
    )  # fmt: skip


def note_unreached(executor: Executor) -> None:
    """Notes that jobs there do not reach the store, so that for a day no other is submitted in vain."""
    note = _note_of(executor)
    with contextlib.suppress(OSError):  # a full disk: the next job is submitted twice, too
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def _may_be_reached(note: Path) -> bool:
    try:
        return time.time() - note.stat().st_mtime > _UNREACHED_FOR
    except FileNotFoundError:
        return True


def _note_of(executor: Executor) -> Path:
    where = repr((executor.connection_key(), executor.outputs_route, settings.store_url()))
    return settings.home() / "unreached" / hashlib.sha256(where.encode()).hexdigest()[:16]


def _seconds(time_limit: float | None) -> float:
    return LONGEST if time_limit is None else min(time_limit + _MARGIN, LONGEST)


class SentOutputs:
    """What one job has sent into the shared store, if anything.

    Args:
        outcome: How the job ended.
        key: The job's key.
        executor: Where it ran.
        inform: Called with how far it has come.
        warn: Called with what is not as it was asked for, in one line.
    """

    def __init__(
        self,
        outcome: Outcome,
        key: str,
        executor: Executor,
        *,
        inform: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._outcome = outcome
        self._key = key
        self._machines = executor.nodes if executor.is_group else 1
        self._inform = inform
        self._warn = warn

    @functools.cached_property
    def _store(self) -> SharedStore | None:
        store = configured_store()
        return store if store is not None and lets_jobs_write(store) else None

    @property
    def _accepting(self) -> SharedStore:
        """The store, once it has accepted the manifest."""
        assert self._store is not None  # noqa: S101 - for the type checker
        return self._store

    def accept(self) -> Manifest | None:
        """Has the store keep what it got; returns None where not all outputs are there, or one is damaged."""
        if self._store is None or not self._outcome.sent:
            return None
        try:
            return self._accepted(self._store, self._outcome.sent)
        except StoreError as error:
            self._warn(f"what the job has sent to the store is of no use, so it is fetched from the back-end: {error}")
            return None

    def keep_artifacts(self, manifest: Manifest) -> dict[str, str] | None:
        """Returns where the artifacts are kept that the job returned, by digest; None if one has to be fetched."""
        return keep_stored_artifacts(self._outcome.result, self._key, self._accepting, manifest)

    def keep_in_run(self, manifest: Manifest, run: TrackedRun | None) -> bool:
        """Has the store copy the outputs to their run; returns False where they have to be fetched for that."""
        return run is None or keep_stored(run, self._accepting, manifest, inform=self._inform, warn=self._warn)

    def put_tree(self, manifest: Manifest) -> str:
        """Has what a run keeps of the outputs be a tree of the store; returns its digest."""
        return Incoming(self._accepting, self._key).put_tree(manifest, kept_files(manifest, lambda line: None))

    def fetch(self, manifest: Manifest, into: Path) -> None:
        """Writes the outputs into a folder of this machine."""
        Incoming(self._accepting, self._key).fetch(manifest, into)

    def pass_on(self, manifest: Manifest, passage: Passage) -> None:
        """Hands the outputs to where they are kept, while they come from the store."""
        pass_on(self._accepting, manifest, passage)
        passage.has_all(lambda line: self._warn(f"this output cannot be kept: {line}"))

    def fetch_announced(self, into: Path) -> bool:
        """Writes what a job has sent that did not end by itself; returns whether there was anything."""
        if self._store is None or self._outcome.succeeded:
            return False
        manifest = self._accepted(self._store, "")
        if manifest is None:
            return False
        self.fetch(manifest, into)
        self._warn(
            f"of the outputs of job {self._key} only those are left that it had announced with log_artifact(): "
            f"{len(manifest.files)} files"
        )
        return True

    def forget(self) -> None:
        """Deletes what the job has sent, once all of it is kept."""
        if self._store is None:
            return
        try:
            if not self._outcome.succeeded:
                keep_checkpoints(self._key, self._warn)
            Incoming(self._store, self._key).forget()
        except StoreError as error:
            self._inform(f"what the job has sent stays in the store until 'nemo-airflow store gc' deletes it: {error}")

    def _accepted(self, store: SharedStore, sha256: str) -> Manifest | None:
        incoming = Incoming(store, self._key)
        manifest = incoming.read(sha256, self._machines)
        if manifest is None or not manifest.files:
            return None
        progress = Progress("outputs accepted by the store", self._inform, manifest.size)
        incoming.accept(manifest, progress.add)
        if manifest.left_out:
            self._warn(f"these outputs cannot be kept, all others are: {'; '.join(manifest.left_out[:10])}")
        self._inform(
            f"The job has sent its outputs to the store itself: {len(manifest.files)} files, {size_text(manifest.size)}"
        )
        return manifest


def is_empty(folder: Path) -> bool:
    """Returns whether there is no file in a folder."""
    return not any(path.is_file() for path in folder.rglob("*"))
