"""Writes archives whose bytes follow from their content alone."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping

from nemo_airflow.job import Package
from nemo_airflow.packaging.store import PackageStore


def write_archive(files: Mapping[str, bytes], store: PackageStore) -> Package:
    """Packs files that are in memory: small ones, as those of a test.

    Args:
        files: Content by path.
        store: Where the archive is kept.
    """
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    key = digest.hexdigest()
    if not store.has(key):
        with (
            store.write(key) as file,
            gzip.GzipFile("", "wb", 1, file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name, data in sorted(files.items()):
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o644
                tar.addfile(member, io.BytesIO(data))
    return Package(key, "tar.gz", store.path(key).stat().st_size)
