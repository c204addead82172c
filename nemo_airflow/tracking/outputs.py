"""Puts the outputs of a job that has ended where they are kept: into the shared store and into the job's run."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nemo_airflow.exceptions import ConfigError
from nemo_airflow.folders import folder_size
from nemo_airflow.progress import Progress
from nemo_airflow.threads import Threads
from nemo_airflow.tracking.artifacts import ArtifactCollector, CollectEverything, files_under, keep
from nemo_airflow.tracking.keepers import Keepers
from nemo_airflow.tracking.passage import Passage
from nemo_airflow.tracking.run import TrackedRun

T = TypeVar("T")

_STALL = 60.0
"""Seconds. What a tracker does not take in this time waits on disk."""


class OutputKeeper:
    """Keeps the outputs of one job, in threads.

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

    @property
    def wants_whole_folder(self) -> bool:
        """Whether a collector has to see all outputs before any is kept."""
        return bool(self._run.collector)

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
        passage = Passage(folder, Progress("outputs kept", self._inform, await self._transfer(folder_size, kept)))
        with self.begin(passage) as keepers:
            for path in files_under(kept):
                passage.take_file(path.as_posix(), kept / path, passing=False)
            passage.start()
            return await self.finish(keepers)

    def begin(self, passage: Passage, stored: str = "") -> Keepers:
        """Returns the keepers of what passes there, which begin with the passage, and end with the context.

        Args:
            passage: Where the files come.
            stored: Their digest as a tree of the shared store, where that has them already; else empty.
        """
        return Keepers(self._run, passage, self._inform, self._warn, self._stall, stored)

    async def finish(self, keepers: Keepers) -> bool:
        """Waits until all is kept; returns and raises as :meth:`keep` does."""
        return await self._transfer(keepers.finish)

    async def _transfer(self, call: Callable[..., T], *arguments: object) -> T:
        return await _threads(os.getpid()).transfer(call, *arguments)

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
