"""Deletes objects from a shared store that no reference names and nobody wanted for a while.

Why nothing is deleted on which a concurrent put relies: a put relies on a file only if it was wanted within the last
hour (``FRESH``), or after it has touched the file, *then* seen that no collection is in progress, and *then* seen the
file. A collection announces itself, *then* lists the store, and spares files wanted in the last two hours or more. So
of a put and a collection at the same moment either the put sees the announcement, and waits for its end before it
looks again; or its touch came before the listing, and the file is spared. A file that a put relies on as fresh is
younger than what any collection deletes. All times are those of the store's own clock, but for the put's idea of an
hour, which may be wrong by another hour. A blob is deleted only together with all records that name it, and a package
only together with the changes that are based on it. A patch stays as long as its package.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import time
from collections.abc import Collection, Iterator

from nemo_airflow.exceptions import StoreError
from nemo_airflow.job import BASE_DIGITS, is_patch
from nemo_airflow.store import trees
from nemo_airflow.store.incoming import FOLDER as INCOMING
from nemo_airflow.store.incoming import LONGEST
from nemo_airflow.store.place import Entry
from nemo_airflow.store.shared import COLLECTION_LASTS, FRESH, SharedStore, blob_name, blobs_of

_BATCH = 500


@dataclasses.dataclass(frozen=True)
class Garbage:
    """The objects that a collection deletes, or would delete.

    Attributes:
        records: Packages and trees.
        blobs: Their content.
        refs: References that have expired.
        incoming: What jobs have sent by themselves and nobody came back for.
    """

    records: tuple[Entry, ...]
    blobs: tuple[Entry, ...]
    refs: tuple[Entry, ...]
    incoming: tuple[Entry, ...] = ()

    @property
    def size(self) -> int:
        """Bytes that it frees."""
        return sum(entry.size for entry in (*self.records, *self.blobs, *self.refs, *self.incoming))


def collect(
    store: SharedStore,
    *,
    older_than: float,
    keep: Collection[str] = (),
    dry_run: bool = False,
    later: float = 0.0,
) -> Garbage:
    """Deletes objects that no reference names and nobody wanted for a while.

    Args:
        store: The store.
        keep: Digests of packages and outputs that are used elsewhere, for example by runs in MLflow.
        older_than: Seconds since an object was last wanted; at least two hours.
        dry_run: Whether only to list the objects.
        later: Seconds to add to the current time.

    Raises:
        StoreError: The time is too short; or the collection took so long that others may stop waiting for it.
    """
    if older_than < 2 * FRESH:
        raise StoreError(
            f"older_than={older_than:.0f} s is too short, since uploads may be going on: give two hours or more"
        )
    garbage = _find(store, time.time() + later, older_than, keep)
    if dry_run or not (garbage.records or garbage.blobs or garbage.refs or garbage.incoming):
        return garbage
    with _announced(store) as (announced_at, begun):
        garbage = _find(store, announced_at + later, older_than, keep)
        # Records first: a record must never name a deleted blob.
        names = [entry.name for entry in (*garbage.refs, *garbage.records, *garbage.blobs, *garbage.incoming)]
        for start in range(0, len(names), _BATCH):
            if time.monotonic() - begun > COLLECTION_LASTS / 3:
                raise StoreError(
                    "the collection took too long and was stopped, since others wait for it: run it again for the rest"
                )
            store.delete(names[start : start + _BATCH])
    return garbage


def references(store: SharedStore) -> dict[str, dict[str, object]]:
    """Returns the references by name, each with ``objects`` and ``expires``."""
    found = {}
    for entry in store.entries("refs"):
        if (ref := store.read_json(entry.name)) is not None:
            found[entry.name.removeprefix("refs/")] = ref
    return found


def _find(store: SharedStore, now: float, older_than: float, keep: Collection[str]) -> Garbage:
    held: set[str] = set()
    expired = []
    for entry in store.entries("refs"):
        ref = store.read_json(entry.name)
        if ref is None or (ref.get("expires") or now) < now:
            expired.append(entry)
        else:
            held.update(ref["objects"])
    records = [*store.entries("packages"), *store.entries("trees")]
    living = {e.name for e in records if e.name in held or e.wanted_at >= now - older_than or _digest(e.name) in keep}
    bases = {base for name in living if not is_patch(name) and (base := _base(name))}
    living.update(entry.name for entry in records if _as_base(entry.name) in bases)
    packages = {_digest(name) for name in living if not is_patch(name)}
    living.update(entry.name for entry in records if is_patch(entry.name) and _digest(entry.name) in packages)
    living_blobs: set[str] = set()
    for entry in records:
        if entry.name in living and (record := store.read_json(entry.name)) is not None:
            shas = trees.blobs_of(record) if "files" in record else blobs_of(record)
            living_blobs.update(blob_name(sha) for sha in shas)
    blobs = [e for e in store.entries("blobs") if e.name not in living_blobs and e.wanted_at < now - older_than]
    dead = tuple(entry for entry in records if entry.name not in living)
    return Garbage(dead, tuple(blobs), tuple(expired), tuple(_find_abandoned(store, now - older_than)))


def _find_abandoned(store: SharedStore, before: float) -> Iterator[Entry]:
    """Yields what jobs have sent, of whom none has sent anything since then, and may not any more."""
    by_job: dict[str, list[Entry]] = {}
    for entry in store.entries(INCOMING):
        by_job.setdefault(entry.name.split("/")[1], []).append(entry)
    for entries in by_job.values():
        if max(entry.wanted_at for entry in entries) < before - LONGEST:
            yield from entries


def _digest(name: str) -> str:
    """Returns the digest in the name of a record's file."""
    return re.split(r"[-.]", name.rpartition("/")[2])[0]


def _base(name: str) -> str:
    """Returns the base package of a record of changes, in the form of :func:`_as_base`; else an empty text."""
    changes, _, base = name.partition("-")
    return f"{changes.partition('/')[0]}/{base}" if base else ""


def _as_base(name: str) -> str:
    folder, _, file = name.partition("/")
    digest, dot, format = file.partition(".")
    return f"{folder}/{digest[:BASE_DIGITS]}{dot}{format}"


@contextlib.contextmanager
def _announced(store: SharedStore) -> Iterator[tuple[float, float]]:
    name = f"collecting/{secrets.token_hex(8)}"
    begun = time.monotonic()
    store.write_json(name, {})
    try:
        entry = next(entry for entry in store.entries("collecting") if entry.name == name)
        yield entry.wanted_at, begun
    finally:
        store.delete([name])
