"""Lists, stores, fetches and collects the packages and outputs of the shared store."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from nemo_airflow import settings
from nemo_airflow.artifacts.keeping import fetched_folder, find_fetched
from nemo_airflow.cli.output import JSON, print_json
from nemo_airflow.config.plan.versions import ConfigVersions
from nemo_airflow.exceptions import SettingsError, StoreError
from nemo_airflow.experiment.looking import has_ended
from nemo_airflow.experiment.records import ExperimentRecords
from nemo_airflow.launch.records import Records
from nemo_airflow.packaging import notes
from nemo_airflow.store import sharing
from nemo_airflow.store.address import open_store
from nemo_airflow.store.collection import collect, references
from nemo_airflow.store.local import PackageStore
from nemo_airflow.store.shared import SharedStore
from nemo_airflow.store.trees import get_tree, put_tree

_DAY = 86400.0


def store_at(url: str) -> SharedStore:
    """Returns the store at an address, or the configured one for an empty text.

    Raises:
        SettingsError: No address is given or configured.
    """
    address = url or settings.store_url()
    if not address:
        raise SettingsError(
            "no store is configured: give --store, or set NEMO_AIRFLOW_STORE to a folder, ssh://, s3:// ..."
        )
    return open_store(address)


def ls(url: str, output: str) -> int:
    """Prints packages, outputs and references."""
    store = store_at(url)
    objects = [entry for folder in ("packages", "trees") for entry in store.entries(folder)]
    refs = dict(sorted(references(store).items()))
    size = sum(entry.size for entry in store.entries("blobs"))
    if output == JSON:
        named = [dataclasses.asdict(entry) for entry in objects]
        print_json({"store": store.place.where, "objects": named, "references": refs, "size": size})
        return 0
    for entry in objects:
        print(entry.name)
    for name, ref in refs.items():
        print(f"refs/{name}", ref.get("expires") or "for ever")
    print(f"{size} bytes of content in {store.place.where}")
    return 0


def put(url: str, folder: str) -> int:
    """Stores the files of a folder, and prints their digest."""
    path = Path(folder)
    if not path.is_dir():
        raise StoreError(f"{folder} is not a folder: give the folder whose files to store")
    print(put_tree(store_at(url), path))
    return 0


def get(url: str, digest: str, folder: str) -> int:
    """Fetches outputs by the beginning of their digest."""
    store = store_at(url)
    name = store.find(digest)
    if not name.startswith("trees/"):
        raise StoreError(f"{name} is a package, which only jobs unpack: `get` is for outputs")
    files = get_tree(store, name.removeprefix("trees/"), Path(folder))
    print(f"{len(files)} files in {folder}")
    return 0


def pin(url: str, digest: str, name: str) -> int:
    """Protects an object from collection, under a name."""
    store = store_at(url)
    store.hold(name, [store.find(digest)])
    return 0


def unpin(url: str, name: str) -> int:
    """Deletes such a name."""
    if not store_at(url).release(name):
        raise StoreError(f"there is no reference {name!r}: `nemo-airflow store ls` lists them")
    return 0


def gc(url: str, days: float, *, dry_run: bool, keep_runs: bool, tracking_uri: str | None, conn_id: str | None) -> int:
    """Deletes objects that no reference and no run in MLflow names, and nobody wanted for some days.

    The same holds for all that this machine keeps in ``$NEMO_AIRFLOW_HOME``, with or without a shared store, but for
    the folders of jobs, which ``nemo-airflow reap --folders`` deletes.
    """
    done = "would be freed" if dry_run else "freed"
    keep: set[str] = set()
    if keep_runs:
        from nemo_airflow.tracking.mlflow.recorded import digests_of_runs

        keep = digests_of_runs(tracking_uri, conn_id)
    packages = settings.packages_folder()
    count, size = PackageStore(packages).prune(days * _DAY, keep=keep, dry_run=dry_run)
    print(f"{count} files of this machine's packages, {size} bytes {done}")
    if url or settings.store_url():
        garbage = collect(store_at(url), older_than=days * _DAY, keep=keep, dry_run=dry_run)
        for entry in (*garbage.refs, *garbage.records):
            print(entry.name)
        print(f"{len(garbage.records)} packages and outputs, {len(garbage.blobs)} files, {garbage.size} bytes {done}")
    before = time.time() - days * _DAY
    configs, bundles, launched = ConfigVersions(), settings.bundles_folder(), Records()
    experiments = ExperimentRecords()
    for what, files, top in (
        ("notes of packagers", notes.find_unused(packages, before), packages),
        ("configs", configs.find_unused(before, keep), configs.folder),
        ("archives on their way to a back-end", _old_files(bundles, before), bundles),
        ("artifacts that were fetched", find_fetched(before), fetched_folder()),
        ("records of launched jobs", launched.find_old(before), launched.folder),
        ("records of experiments", experiments.find_old(before, has_ended), experiments.folder),
    ):
        count, size = sharing.delete_files(files, top, dry_run=dry_run)
        if count:
            print(f"{count} files of {what}, {size} bytes {done}")
    count, size = sharing.delete_abandoned(settings.home() / "outputs", before, dry_run=dry_run)
    if count:
        print(f"{count} files of outputs that a killed task was fetching, {size} bytes {done}")
    return 0


def _old_files(folder: Path, before: float) -> Iterator[Path]:
    for file in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process deletes it
            if file.stat().st_mtime < before:
                yield file
