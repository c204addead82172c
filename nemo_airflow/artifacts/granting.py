"""Lets a job fetch artifacts and its package straight from the shared store, at addresses that are signed here.

The credentials stay on this side. What is small, or in too many blobs, is sent by the worker.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_airflow.artifacts.keeping import archive_named, format_of
from nemo_airflow.exceptions import StoreError
from nemo_airflow.job import Archive, Package
from nemo_airflow.language.artifact import FOLDER, Artifact
from nemo_airflow.runner.inputs import artifacts_in
from nemo_airflow.store.shared import SharedStore, blob_name, record_name
from nemo_airflow.store.trees import read_places

WORTH_IT = 1 << 20
"""Bytes of an artifact, or a package, below which the worker sends it with the job's other files."""

_LONGEST = 96 << 10
"""Bytes of a grant: as a variable of a process's environment it may have 128 KiB."""

_LOOKS = 8

Content = dict[str, Any]
"""Where an artifact's bytes are: see :class:`nemo_airflow.runner.fetching.Fetcher`."""


@dataclasses.dataclass
class Offer:
    """What a job can fetch by itself.

    Attributes:
        archives: The archives of artifacts, by their digest.
        has_package: Whether its package is among it.
        grant: What the job needs for that, which is never shown.
    """

    archives: dict[str, Archive] = dataclasses.field(default_factory=dict)
    has_package: bool = False
    grant: dict[str, Any] = dataclasses.field(default_factory=lambda: {"urls": {}, "archives": {}}, repr=False)


def offer(
    store: SharedStore,
    plan: Mapping[str, Any],
    package: Package | None,
    seconds: float,
    route: str = "",
    also: Sequence[Artifact] = (),
) -> Offer:
    """Returns what of a job's package, and of the artifacts in its plan, the job can fetch by itself. Blocks.

    Args:
        store: The shared store.
        plan: The plan.
        package: The package, or None.
        seconds: How long the addresses hold.
        route: The store as the job's host knows it: the service's address, or a folder; empty for that of the store.
        also: Further artifacts that the job is given.

    Raises:
        StoreError: The store refuses, or cannot be reached.
    """
    made = Offer()
    if not store.place.sign("blobs/any", seconds, route):
        return made
    signer = _Signer(store, seconds, route, made.grant)
    if package is not None and package.size >= WORTH_IT:
        found = {archive.name: _find_archive(store, archive) for archive in package.archives}
        made.has_package = None not in found.values() and signer.add(
            {name: each for name, each in found.items() if each}
        )
    for given in (*artifacts_in(plan), *also):
        if given.size >= WORTH_IT and given.digest not in made.archives and (content := _find(store, given)):
            archive = archive_named(given, int(content["size"]))._replace(is_fetched=True)
            if signer.add({archive.name: content}):
                made.archives[given.digest] = archive
    return made


class _Signer:
    """Adds archives to a grant, as long as there is room.

    Args:
        store: The store.
        seconds: How long addresses hold.
        route: The store as the job's host knows it.
        grant: The grant, which grows.
    """

    def __init__(self, store: SharedStore, seconds: float, route: str, grant: dict[str, Any]) -> None:
        self._store = store
        self._seconds = seconds
        self._route = route
        self._grant = grant

    def add(self, contents: Mapping[str, Content]) -> bool:
        """Adds all of these archives, by name, or none; returns whether it did."""
        blobs = {sha256 for content in contents.values() for sha256 in _blobs_of(content)}
        urls = {sha256: self._store.place.sign(blob_name(sha256), self._seconds, self._route) for sha256 in blobs}
        larger = {
            "urls": {**self._grant["urls"], **urls},
            "archives": {**self._grant["archives"], **contents},
        }
        if len(json.dumps(larger)) > _LONGEST:
            return False
        self._grant.update(larger)
        return True


def _find(store: SharedStore, given: Artifact) -> Content | None:
    """Returns where the store has an artifact whole, marked as wanted; None where it has not."""
    format = format_of(given)
    content = _find_archive(store, Archive(given.digest, format, given.size, ""))
    if content is not None or given.kind != FOLDER:
        return content
    try:
        places = read_places(store, given.digest)
    except StoreError:  # it has none, or a damaged one, of which the worker says what to do
        return None
    files = [[*file, parts] for file, parts in places]
    content = {"digest": given.digest, "format": format, "size": given.size, "files": files}
    return content if _is_kept(store, f"trees/{given.digest}", content) else None


def _find_archive(store: SharedStore, archive: Archive) -> Content | None:
    """The same of an archive that the store has as one."""
    name = record_name(archive)
    record = store.read_json(name)
    if record is None:
        return None
    sha256, size = str(record["sha256"]), int(record["size"])
    parts = record.get("pieces") or [[sha256, 0, size]]
    content = {"digest": archive.digest, "format": archive.format, "size": size, "sha256": sha256, "parts": parts}
    return content if _is_kept(store, name, content) else None


def _is_kept(store: SharedStore, name: str, content: Content) -> bool:
    with concurrent.futures.ThreadPoolExecutor(_LOOKS) as threads:
        return store.keeps_record(name) and all(threads.map(store.keeps_blob, _blobs_of(content)))


def _blobs_of(content: Content) -> list[str]:
    groups = [content["parts"]] if "parts" in content else [file[-1] for file in content["files"]]
    return list(dict.fromkeys(sha256 for parts in groups for sha256, _, _ in parts))
