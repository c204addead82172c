"""Lets a job fetch the artifacts that it is given straight from the shared store, at addresses that are signed here.

The credentials stay on this side. What is small, or in too many blobs, is sent by the worker.
"""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Mapping
from typing import Any

from nemo_airflow.artifacts.keeping import archive_named, format_of
from nemo_airflow.exceptions import StoreError
from nemo_airflow.job import Archive
from nemo_airflow.language.artifact import FOLDER, Artifact
from nemo_airflow.runner.inputs import artifacts_in
from nemo_airflow.store.shared import SharedStore, blob_name, record_name
from nemo_airflow.store.trees import read_places

WORTH_IT = 1 << 20
"""Bytes of an artifact below which the worker sends it with the job's other files."""

_LONGEST = 96 << 10
"""Bytes of a grant: as a variable of a process's environment it may have 128 KiB."""

_LOOKS = 8

Content = dict[str, Any]
"""Where an artifact's bytes are: see :class:`nemo_airflow.runner.fetching.Fetcher`."""


def offer(
    store: SharedStore, plan: Mapping[str, Any], seconds: float, route: str = ""
) -> tuple[dict[str, Archive], dict[str, Any]]:
    """Returns the artifacts of a plan that a job can fetch by itself. Blocks.

    Args:
        store: The shared store.
        plan: The plan.
        seconds: How long the addresses hold.
        route: The store as the job's host knows it: the service's address, or a folder; empty for that of the store.

    Returns:
        Their archives, by digest, and what the job needs for that, which is never shown; nothing where the store gives
        no addresses.

    Raises:
        StoreError: The store refuses, or cannot be reached.
    """
    archives: dict[str, Archive] = {}
    grant: dict[str, Any] = {"urls": {}, "archives": {}}
    for given in artifacts_in(plan):
        content = _find(store, given) if given.size >= WORTH_IT and given.digest not in archives else None
        if content is None:
            continue
        urls = {sha256: store.place.sign(blob_name(sha256), seconds, route) for sha256 in _blobs_of(content)}
        if not all(urls.values()):
            break
        archive = archive_named(given, int(content["size"]))._replace(is_fetched=True)
        larger = {
            "urls": {**grant["urls"], **urls},
            "archives": {**grant["archives"], archive.name: content},
        }
        if len(json.dumps(larger)) <= _LONGEST:
            archives[given.digest], grant = archive, larger
    return archives, grant if archives else {}


def _find(store: SharedStore, given: Artifact) -> Content | None:
    """Returns where the store has an artifact whole, marked as wanted; None where it has not."""
    named = {"digest": given.digest, "format": format_of(given)}
    name = record_name(Archive(given.digest, format_of(given), 0, ""))
    record = store.read_json(name)
    if record is not None:
        sha256, size = str(record["sha256"]), int(record["size"])
        content = {**named, "size": size, "sha256": sha256, "parts": record.get("pieces") or [[sha256, 0, size]]}
    elif given.kind == FOLDER:
        name = f"trees/{given.digest}"
        try:
            places = read_places(store, given.digest)
        except StoreError:  # it has none, or a damaged one, of which the worker says what to do
            return None
        content = {**named, "size": given.size, "files": [[*file, parts] for file, parts in places]}
    else:
        return None
    with concurrent.futures.ThreadPoolExecutor(_LOOKS) as threads:
        is_there = store.keeps_record(name) and all(threads.map(store.keeps_blob, _blobs_of(content)))
    return content if is_there else None


def _blobs_of(content: Content) -> list[str]:
    groups = [content["parts"]] if "parts" in content else [file[-1] for file in content["files"]]
    return list(dict.fromkeys(sha256 for parts in groups for sha256, _, _ in parts))
