"""Puts the outputs of a job that has ended where they are kept: into the shared store and into the job's run."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential, wait_random

from nemo_airflow.exceptions import ConfigError, StoreUnavailable, TrackingError
from nemo_airflow.jobs.collecting import folder_size
from nemo_airflow.progress import Progress
from nemo_airflow.threads import Threads
from nemo_airflow.tracking import calls, reserved
from nemo_airflow.tracking.artifacts import ArtifactCollector, CollectEverything, files_under, keep
from nemo_airflow.tracking.base import OUTPUTS_DIGEST, PartlyRefusedError, RunRef, UploadWatch
from nemo_airflow.tracking.outbox import Outbox
from nemo_airflow.tracking.run import TrackedRun
from nemo_airflow.tracking.undelivered import Undelivered

T = TypeVar("T")

_STALL = 60.0
"""Seconds. What a tracker does not take in this time waits on disk."""


class OutputKeeper:
    """Keeps the outputs of one job; blocks no event loop.

    Args:
        run: The job's run; opened here if it is not open.
        inform: Called with how far it has come.
        warn: Called with what is not as it was asked for, in one line.
        stall: Seconds without a byte after which a tracker, or a store, is given up.
    """

    def __init__(
        self,
        run: TrackedRun,
        *,
        inform: Callable[[str], None],
        warn: Callable[[str], None],
        stall: float = _STALL,
    ) -> None:
        self._run = run
        self._inform = inform
        self._warn = warn
        self._stall = stall

    async def keep(self, folder: Path) -> bool:
        """Keeps the files of ``folder/outputs`` that the collector chooses. May be called again with the same folder.

        Args:
            folder: Room for further files, on the same disk.

        Returns:
            Whether all are kept. If not, a warning has named those that are refused for good.

        Raises:
            TrackingError: The tracker refuses all for good.
            StoreError: The shared store refuses, or cannot be reached.
            OSError: The disk here is full.
        """
        kept = folder / "kept"
        await self._transfer(self._gather, folder, kept)
        files = {path.as_posix(): kept / path for path in files_under(kept)}
        if not files:
            return True
        progress = Progress("outputs kept", self._inform, await self._transfer(folder_size, kept))
        digest = await self._patiently(progress, lambda: _share(kept))
        waiting = dict(files)
        try:
            await self._upload(progress, digest, waiting)
        except PartlyRefusedError as error:
            self._warn(f"these outputs are refused, all others are kept: {error}")
            return False
        except TrackingError as error:
            if not error.transient:
                raise
            place = await self._transfer(self._spool, digest, waiting)
            self._warn(
                f"the tracker is away ({error}), so {len(waiting)} outputs wait in {place}: they are delivered when it "
                "is back, by whoever follows a job on this machine, or by 'nemo-airflow sync'"
            )
        return True

    async def _upload(self, progress: Progress, digest: str, waiting: dict[str, Path]) -> None:
        """Puts into the run what waits, and takes from there what is stored."""
        tracker = self._run.tracker
        ref = await self._patiently(progress, self._opened)
        if digest:
            await self._patiently(progress, lambda: tracker.tag(ref, {OUTPUTS_DIGEST: digest}))
        watch = _Watch(progress, waiting)
        await self._patiently(progress, lambda: tracker.artifacts(ref, dict(waiting), watch))
        await self._patiently(progress, lambda: tracker.outputs_kept(ref))

    def _spool(self, digest: str, waiting: Mapping[str, Path]) -> Path:
        """Keeps on this machine's disk what the tracker did not take; returns where.

        Raises:
            OSError: Not all of it fits.
        """
        outbox = Outbox()
        if digest:
            outbox.put(calls.tags({OUTPUTS_DIGEST: digest}))
        outbox.file_calls += (calls.files(waiting), calls.outputs_kept())
        kept = Undelivered(self._run.job.key, self._run.began).keep(self._run, outbox, "")
        if kept.lost:
            raise OSError(f"the tracker is away, and the outputs cannot wait in {kept.folder}: {'; '.join(kept.lost)}")
        return kept.folder

    def _opened(self) -> RunRef:
        ref = self._run.ref or self._run.open().ref
        assert ref is not None  # noqa: S101 - for the type checker: an open run has it
        return ref

    async def _transfer(self, call: Callable[..., T], *arguments: object) -> T:
        return await _threads(os.getpid()).transfer(call, *arguments)

    async def _patiently(self, progress: Progress, call: Callable[[], T]) -> T:
        """Makes a call in a thread; again, where it may succeed later, as long as something moves now and then."""

        def say(state: RetryCallState) -> None:
            if state.attempt_number == 1 and state.outcome is not None:
                self._inform(f"the outputs are not kept yet, trying again: {state.outcome.exception()}")

        retrying = AsyncRetrying(
            retry=retry_if_exception(_may_succeed_later),
            wait=wait_exponential(multiplier=0.5, max=15) + wait_random(0, 1),
            stop=lambda state: progress.silence >= self._stall,
            before_sleep=say,
            reraise=True,
        )
        return await retrying(self._transfer, call)

    def _gather(self, folder: Path, kept: Path) -> None:
        if kept.exists():
            shutil.rmtree(kept)
        outputs, job = folder / "outputs", self._run.job
        try:
            keep(load_collector(self._run.collector), job, outputs, kept)
        except Exception as error:  # noqa: BLE001 - a collector is user code, and the job has ended well without it
            reason = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
            self._warn(f"the collector {self._run.collector!r} failed, so all outputs were kept: {reason}")
            keep(CollectEverything(), job, outputs, kept)
        if name := reserved.move_aside(kept):
            self._warn(
                f"the job's output {reserved.RECORD!r} has the name of the run's record, so it is kept as {name!r}"
            )


class _Watch(UploadWatch):
    """Takes what is stored from the files that wait: after a failure only the others are sent."""

    def __init__(self, progress: Progress, waiting: dict[str, Path]) -> None:
        self._progress = progress
        self._waiting = waiting

    def sent(self, size: int) -> None:
        self._progress.add(size)

    def stored(self, path: str) -> None:
        self._waiting.pop(path, None)


def _may_succeed_later(error: BaseException) -> bool:
    return isinstance(error, StoreUnavailable) or (isinstance(error, TrackingError) and error.transient)


def _share(kept: Path) -> str:
    """Puts the files into the shared store; returns their digest, empty if there is no store."""
    from nemo_airflow.store.address import configured_store
    from nemo_airflow.store.trees import put_tree

    store = configured_store()
    return put_tree(store, kept) if store is not None else ""


@functools.cache
def _threads(pid: int) -> Threads:
    """Returns the threads of this process that copy and share outputs; a fork does not have its parent's threads."""
    return Threads("tracking-outputs", transfers=8)


def load_collector(path: str) -> ArtifactCollector:
    """Returns the collector ``"pkg.mod:Class"``; for an empty text the one that keeps everything.

    Raises:
        ConfigError: The collector does not exist, or is not a collector.
    """
    if not path:
        return CollectEverything()
    module, _, name = path.partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"collector={path!r} cannot be imported as 'pkg.mod:Class': {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, ArtifactCollector)):
        raise ConfigError(f"collector={path!r} is not an ArtifactCollector")
    return cls()
