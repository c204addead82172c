"""One archive with all that a job needs where it runs: the runner, the job, its package."""

from __future__ import annotations

import io
import json
import posixpath
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from nemo_airflow import settings
from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, StoreError, StoreUnavailable
from nemo_airflow.executors import shipping
from nemo_airflow.executors.base import Request
from nemo_airflow.job import Archive
from nemo_airflow.runner import secret_env
from nemo_airflow.store import PackageStore


def runner_entry() -> str:
    """Returns the path of the runner's program within a bundle."""
    return f"runner/{shipping.runner_digest()}/{shipping.ENTRY}"


def archive_files(archives: Iterable[Archive]) -> list[tuple[Archive, Path]]:
    """Returns archives with where they are on this machine; see :func:`archive_path`. Blocks."""
    return [(archive, archive_path(archive)) for archive in archives]


def archive_path(archive: Archive) -> Path:
    """Returns where an archive is on this machine, to which it is fetched from the shared store if need be.

    Blocks.

    Raises:
        ExecutorError: It is in neither.
        BackendUnavailable: The shared store is away.
    """
    cache = PackageStore(settings.packages_folder())
    path = cache.path(archive.digest, archive.format)
    from nemo_airflow.store.address import configured_store

    try:
        if cache.has(archive.digest, archive.format):
            return path
        shared = configured_store()
        if shared is not None:
            return shared.get_package(archive, cache)
    except StoreUnavailable as error:
        raise BackendUnavailable(str(error)) from error
    except StoreError as error:
        raise ExecutorError(str(error)) from error
    raise ExecutorError(
        f"{'artifact' if archive.name.startswith('input.') else 'package'} {archive.digest[:12]} is neither in "
        f"{path.parent.parent} nor in a shared store: clear the task, and build it again"
    )


def write_bundle(
    request: Request,
    file: IO[bytes],
    *,
    base: str = "",
    folder: str = "job",
    uid: int = 0,
    gid: int = 0,
    with_archives: bool = True,
    with_secrets: bool = False,
) -> None:
    """Writes the archive as an uncompressed tar.

    The same request gives the same bytes. Its folders can be written by anybody: who the job runs
    as is up to its image.

    Args:
        request: The request, with the files of the job.
        file: Where to write; need not be seekable.
        base: A folder within the archive that holds all the rest, or empty.
        folder: The job's folder within that.
        uid: Owner of all members.
        gid: Group of all members.
        with_archives: Whether the package and the artifacts go along.
        with_secrets: Whether the values of the job's secrets do: where nobody but the job can read the archive.

    Raises:
        ExecutorError: The package is not in the store.
    """
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        writer = _Writer(tar, base, uid, gid)
        for name, data in sorted(shipping.runner_files().items()):
            writer.add(f"runner/{shipping.runner_digest()}/{name}", data)
        writer.folder(folder)
        for name, text in sorted(request.files.items()):
            writer.add(f"{folder}/{name}", text.encode())
        if with_secrets and request.values:
            # Who the job runs as is not known, so anybody there may read it: until the runner, the first process that
            # is started there, deletes it.
            writer.add(f"{folder}/{secret_env.FILE}", json.dumps(request.values).encode())
        for archive, path in archive_files(request.archives if with_archives else ()):
            with path.open("rb") as content:
                writer.add_file(f"{folder}/{archive.name}", content)


class _Writer:
    def __init__(self, tar: tarfile.TarFile, base: str, uid: int, gid: int) -> None:
        self._tar = tar
        self._base = base
        self._owner = (uid, gid)
        self._folders = set() if base else {""}

    def folder(self, name: str) -> None:
        if name in self._folders:
            return
        self._folders.add(name)
        if name:
            self.folder(name.rpartition("/")[0])
        member = self._member(name, 0o777)
        member.type = tarfile.DIRTYPE
        self._tar.addfile(member)

    def add(self, name: str, data: bytes) -> None:
        self.folder(name.rpartition("/")[0])
        member = self._member(name, 0o644)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))

    def add_file(self, name: str, file: IO[bytes]) -> None:
        self.folder(name.rpartition("/")[0])
        member = self._member(name, 0o644)
        member.size = file.seek(0, io.SEEK_END)
        file.seek(0)
        self._tar.addfile(member, file)

    def _member(self, name: str, mode: int) -> tarfile.TarInfo:
        member = tarfile.TarInfo(posixpath.join(self._base, name))
        member.mode = mode
        member.uid, member.gid = self._owner
        return member
