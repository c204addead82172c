"""The two archives that a job brings into the cluster's package store, each named by its content.

One has the code: the runner, the job's package as it is, and the package's files once more as a
tree, for the workers of Ray tasks and actors that the job starts on other nodes. It is the same
for all jobs of a package, and sent once. The other has the job's own files, a few kilobytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from nemo_airflow.executors import shipping
from nemo_airflow.executors.base import Request
from nemo_airflow.executors.bundle import archive_files, archive_path
from nemo_airflow.executors.ray.start import HIDDEN, PIECE_OF
from nemo_airflow.job import Archive, Package
from nemo_airflow.runner import secret_env
from nemo_airflow.runner.unpack import unpack_package

LARGEST = 100 << 20
"""Bytes from which on Ray's dashboard refuses an archive (``DASHBOARD_CLIENT_MAX_SIZE`` of ``ray_constants.py``)."""

PIECE = 64 << 20
"""Bytes of an artifact that one archive carries."""

ENTRY = f"{HIDDEN}/start.py"
"""The program to start, relative to Ray's working directory."""

_LAYOUT = "2"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def code_name(package: Package | None) -> str:
    """Returns the name of the code's archive: another runner or package is another name."""
    parts = [
        _LAYOUT,
        shipping.runner_digest(),
        _start_digest(),
        *(f"{archive.digest}.{archive.format}" for archive in (package.archives if package else ())),
    ]
    return f"nemo_airflow_code_{_digest(parts)}.zip"


def files_name(key: str, files: dict[str, str]) -> str:
    """Returns the name of the archive of a job's own files."""
    parts = [_LAYOUT, key, *(part for name, text in sorted(files.items()) for part in (name, text))]
    return f"nemo_airflow_job_{_digest(parts)}.zip"


def sent(inputs: Iterable[Archive]) -> list[Archive]:
    """Returns the archives that the job does not fetch by itself."""
    return [archive for archive in inputs if not archive.is_fetched]


def input_names(archive: Archive) -> list[str]:
    """Returns the names of the archives that carry an artifact in pieces: the same for all jobs that are given it."""
    pieces = max(-(-archive.size // PIECE), 1)
    parts = [_LAYOUT, archive.digest, archive.format]
    return [f"nemo_airflow_input_{_digest([*parts, str(piece)])}.zip" for piece in range(pieces)]


def write_input(archive: Archive, piece: int, file: IO[bytes]) -> None:
    """Writes the archive that carries a piece of an artifact, as it is.

    Raises:
        ExecutorError: It is not in this machine's store.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as whole:
        path = archive_path(archive)
        _add_file(whole, f"{HIDDEN}/inputs/{archive.name}{PIECE_OF}{piece:06}", path, piece * PIECE, PIECE)


def write_code(package: Package | None, file: IO[bytes]) -> None:
    """Writes the archive of the code.

    Raises:
        ExecutorError: The package is not in this machine's store.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in sorted(shipping.runner_files().items()):
            _add(archive, f"{HIDDEN}/runner/{name}", data)
        _add(archive, ENTRY, _start_source())
        if package is not None:
            for each, path in archive_files(package.archives):
                _add_file(archive, f"{HIDDEN}/{each.name}", path)
            _add_tree(archive, package)


def write_files(request: Request, file: IO[bytes]) -> None:
    """Writes the archive of a job's own files."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        # Not in the archive's name, which Ray shows.
        values = {secret_env.FILE: json.dumps(request.values)} if request.values else {}
        for name, text in sorted({**request.files, **values}.items()):
            _add(archive, f"{HIDDEN}/jobs/{request.key}/{name}", text.encode(), mode=0o600)


def _add_tree(archive: zipfile.ZipFile, package: Package) -> None:
    """Adds the package's files one by one, links among them as copies: Ray's unpacking knows no links."""
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as folder:
        for each, path in archive_files(package.archives):
            shutil.copyfile(path, Path(folder, each.name))
        root = Path(folder, "work")
        root.mkdir()
        unpack_package(folder, package.to_json(), str(root))
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            # A link to nothing has no content, and a name that is no text no place in such an archive.
            if path.is_file() and not name.startswith(f"{HIDDEN}/") and _is_text(name):
                _add(archive, name, path.read_bytes(), mode=path.stat().st_mode & 0o777)


def _add_file(archive: zipfile.ZipFile, name: str, path: Path, begin: int = 0, size: int | None = None) -> None:
    stored = zipfile.ZipInfo(name, _EPOCH)
    stored.external_attr = 0o100644 << 16
    left = size if size is not None else path.stat().st_size
    with path.open("rb") as source, archive.open(stored, "w", force_zip64=True) as target:
        source.seek(begin)
        while left > 0 and (data := source.read(min(left, 1 << 20))):
            target.write(data)
            left -= len(data)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _add(archive: zipfile.ZipFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = (0o100000 | mode) << 16
    archive.writestr(info, data, compress_type=zipfile.ZIP_DEFLATED)


def _start_source() -> bytes:
    return Path(__file__).with_name("start.py").read_bytes()


def _start_digest() -> str:
    return hashlib.sha256(_start_source()).hexdigest()


def _digest(parts: list[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(f"{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:32]
