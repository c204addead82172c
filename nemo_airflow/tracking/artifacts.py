"""Chooses which files of a job are kept."""

from __future__ import annotations

import abc
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from nemo_airflow.job import Job


class ArtifactCollector(abc.ABC):
    """Chooses the files to keep, and may add files. Runs on Airflow's side, after the job's end.

    An example that leaves out checkpoints::

        class WithoutCheckpoints(ArtifactCollector):
            def collect(self, job, folder):
                return [path for path in files_under(folder) if path.suffix != ".ckpt"]
    """

    @abc.abstractmethod
    def collect(self, job: Job, folder: Path) -> Iterable[Path]:
        """Returns the files to keep, as paths relative to ``folder``.

        Args:
            job: The ended job, successful or not.
            folder: The fetched files: the job's output directory, and the files that match
                ``job.outputs``. Files may be added; the chosen ones must not be changed.
        """


class CollectEverything(ArtifactCollector):
    """Keeps every fetched file."""

    def collect(self, job: Job, folder: Path) -> Iterable[Path]:
        """See :meth:`ArtifactCollector.collect`."""
        return files_under(folder)


def files_under(folder: Path) -> Iterator[Path]:
    """Yields the plain files under a folder in a fixed order, as relative paths; links are left out."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(parent, name)
            if file.is_file() and not file.is_symlink():
                yield file.relative_to(folder)


def keep(collector: ArtifactCollector, job: Job, folder: Path, into: Path) -> list[Path]:
    """Links (or copies) the files that a collector chooses into another folder.

    Returns:
        Their relative paths. A choice that is not a plain file inside ``folder`` is skipped.
    """
    root = folder.resolve()
    kept = []
    for path in dict.fromkeys(collector.collect(job, folder)):
        source = folder / path
        if source.is_symlink() or not source.is_file() or not source.resolve().is_relative_to(root):
            continue
        relative = source.resolve().relative_to(root)
        target = into / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without links
            shutil.copy2(source, target)
        kept.append(relative)
    return kept
