"""Chooses which files of a job are kept."""

from __future__ import annotations

import abc
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_airflow.artifact_references import find_references
from nemo_airflow.job import Job
from nemo_airflow.runner.inputs import artifacts_in
from nemo_airflow.tracking.base import ARTIFACT, ARTIFACT_DIGESTS, INPUT, INPUT_RUN

_DIGESTS = 50
"""Digests in one tag: MLflow keeps 5,000 characters of it."""


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
    """Yields the files under a folder in a fixed order, as relative paths; links only to files under it."""
    root = folder.resolve()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(parent, name)
            if file.is_file() and (not file.is_symlink() or file.resolve().is_relative_to(root)):
                yield file.relative_to(folder)


def keep(collector: ArtifactCollector, job: Job, folder: Path, into: Path) -> list[Path]:
    """Links (or copies) the files that a collector chooses into another folder.

    Returns:
        Their relative paths. A choice that is not a file inside ``folder`` is skipped; a link inside it to a file
        inside it is kept as that file.
    """
    root = folder.resolve()
    kept = []
    for path in dict.fromkeys(collector.collect(job, folder)):
        source = folder / path
        place = source.parent.resolve() / source.name
        if not source.is_file() or not all(each.is_relative_to(root) for each in (place, source.resolve())):
            continue
        relative = place.relative_to(root)
        target = into / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source.resolve(), target)
        except OSError:  # another disk, or one without links
            shutil.copy2(source, target)
        kept.append(relative)
    return kept


def tags_of_artifacts(result: Any) -> dict[str, str]:
    """Returns the tags of a run for the artifacts that its job returned: how to find each by its name."""
    found = find_references(result)
    tags = {
        f"{ARTIFACT}{made.name}": json.dumps(made.to_json(), sort_keys=True, separators=(",", ":")) for made in found
    }
    digests = sorted({made.digest for made in found if made.digest})
    for number, start in enumerate(range(0, len(digests), _DIGESTS)):
        tags[ARTIFACT_DIGESTS.format(number)] = " ".join(digests[start : start + _DIGESTS])
    return tags


def tags_of_inputs(plan: Mapping[str, Any]) -> dict[str, str]:
    """Returns the tags of a run for the artifacts that its job is given: each one's digest, and where it is from."""
    tags = {}
    for given in artifacts_in(plan):
        tags[f"{INPUT}{given.name or given.file}"] = f"{given.run_id or given.job or given.address} {given.digest}"
        if given.run_id:
            tags[f"{INPUT_RUN}{given.run_id}"] = given.name or given.file
    return tags
