"""A shared store in a bucket of S3, Google Cloud Storage or Azure, through fsspec.

These services make an object visible whole: a put, or the end of a multipart upload, is atomic. Objects have no time
that can be touched, so an empty object ``wanted/<name>`` records when a file was last wanted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from nemo_airflow.exceptions import MissingExtraError, StoreError, StoreUnavailable
from nemo_airflow.store.place import Entry, Place

EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure"}

LARGEST = 1 << 30
"""Bytes of a piece that a job may write."""

PIECE = 5 << 20
"""Bytes that are held of a file while it is sent: the smallest piece that all services take."""

_BLOCK = 1 << 20

_WANTED = "wanted"

_SIGNING: Mapping[str, Mapping[str, str]] = {name: {"version": "v4"} for name in ("gs", "gcs")}
"""What a file system is told when it signs an address. Google's older version is not bound to the host."""


class ObjectPlace(Place):
    """Files as objects below a prefix.

    Args:
        protocol: ``s3``, ``gs``, ``abfs`` or ``abfss``.
        root: ``bucket/prefix``.
        options: Options of the fsspec file system: credentials, endpoint. Never shown.
        where: The address for people.
    """

    def __init__(self, protocol: str, root: str, options: Mapping[str, Any], where: str) -> None:
        self.where = where
        self._protocol = protocol
        self._root = root.rstrip("/")
        self._options = dict(options)
        self._open: tuple[int, Any] | None = None

    def stat(self, name: str) -> Entry | None:
        """See :meth:`Place.stat`."""
        own = self._info(name)
        if own is None:
            return None
        mark = self._info(f"{_WANTED}/{name}")
        return Entry(name, int(own["size"]), max(_time(own), _time(mark) if mark else 0.0))

    def put(self, name: str, source: Path, sha256: str) -> None:
        """See :meth:`Place.put`."""
        with self._errors():
            self._fs.put_file(str(source), self._path(name), **self.pieces_of(source.stat().st_size))

    def get(self, name: str, target: Path) -> bool:
        """See :meth:`Place.get`."""
        if self._info(name) is None:
            return False
        with self._errors():
            try:
                self._fs.get_file(self._path(name), str(target))
            except FileNotFoundError:
                return False
        return True

    def read(self, name: str) -> bytes | None:
        """See :meth:`Place.read`."""
        with self._errors():
            try:
                return bytes(self._fs.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """See :meth:`Place.write`."""
        with self._errors():
            self._fs.pipe_file(self._path(name), data)

    def touch(self, name: str) -> None:
        """See :meth:`Place.touch`."""
        if self._info(name) is not None:
            self.write(f"{_WANTED}/{name}", b"\n")

    def entries(self, folder: str) -> Iterator[Entry]:
        """See :meth:`Place.entries`."""
        marks = {name.removeprefix(f"{_WANTED}/"): _time(info) for name, info in self._list(f"{_WANTED}/{folder}")}
        for name, info in self._list(folder):
            yield Entry(name, int(info["size"]), max(_time(info), marks.get(name, 0.0)))

    def delete(self, names: list[str]) -> None:
        """See :meth:`Place.delete`."""
        marks = {name for folder in {name.partition("/")[0] for name in names} for name in self._marks(folder)}
        for name in [*names, *(f"{_WANTED}/{name}" for name in names if name in marks)]:
            with self._errors(), contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

    def sign(self, name: str, seconds: float, route: str = "") -> str:
        """See :meth:`Place.sign`: with the key of a storage account, or of a service account; empty without one."""
        if route.startswith("/"):
            return ""
        with self._errors():
            fs = self._fs
        try:
            url = str(fs.sign(self._path(name), expiration=int(seconds), **_SIGNING.get(self._protocol, {})))
        except Exception:  # noqa: BLE001 - each client has errors of its own for an identity without a key
            return ""
        return urlunsplit((*urlsplit(route)[:2], *urlsplit(url)[2:])) if route else url

    def key(self, name: str) -> tuple[str, str]:
        """Returns the bucket and the key of a file."""
        bucket, _, prefix = self._root.partition("/")
        return bucket, f"{prefix}/{name}" if prefix else name

    def pieces_of(self, size: int) -> dict[str, int]:
        """Returns how the file system is told to send a file of so many bytes, so that it holds few of them."""
        return {}

    def read_digest(self, name: str) -> str:
        """Returns the SHA-256 of a file's content, which is read for that."""
        digest = hashlib.sha256()
        with self._fs.open(self._path(name), "rb", block_size=_BLOCK, cache_type="readahead") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def missing(self, name: str) -> StoreError:
        """Returns the error for a file that is not there."""
        return StoreError(f"{name} is not in the store {self.where}")

    def not_as_named(self, name: str) -> StoreError:
        """Returns the error for a file that has another content than it should."""
        return StoreError(f"{name} in the store {self.where} is not what its name says")

    def _marks(self, folder: str) -> list[str]:
        return [name.removeprefix(f"{_WANTED}/") for name, _ in self._list(f"{_WANTED}/{folder}")]

    def _list(self, folder: str) -> list[tuple[str, Mapping[str, Any]]]:
        with self._errors():
            try:
                found = self._fs.find(self._path(folder), detail=True)
            except FileNotFoundError:
                return []
        root = f"{self._root}/"
        return [(path.lstrip("/").removeprefix(root), info) for path, info in found.items() if info["type"] == "file"]

    def _info(self, name: str) -> Mapping[str, Any] | None:
        with self._errors():
            try:
                info: Mapping[str, Any] = self._fs.info(self._path(name))
            except FileNotFoundError:
                return None
        return info if info["type"] == "file" else None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @property
    def _fs(self) -> Any:
        """The file system; one for each process, since a fork has neither its parent's threads nor its connections."""
        if self._open is None or self._open[0] != os.getpid():
            import fsspec

            try:
                fs = fsspec.filesystem(
                    self._protocol, skip_instance_cache=True, use_listings_cache=False, **self._options
                )
            except ImportError as error:
                raise MissingExtraError(f"a store at {self._protocol}://", EXTRAS[self._protocol]) from error
            self._open = (os.getpid(), fs)
        return self._open[1]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, StoreError, MissingExtraError):
            raise
        except PermissionError as error:
            raise StoreError(f"the store {self.where} refuses these credentials: {self._clean(error)}") from None
        except Exception as error:  # noqa: BLE001 - each client has errors of its own, with no common base
            # Not chained: the original may quote the request, and with it a signature or a key.
            raise StoreUnavailable(f"the store {self.where} cannot be used now: {self._clean(error)}") from None

    def _clean(self, error: BaseException) -> str:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        text = re.sub(r"\?\S+", "?...", text)
        for secret in _texts(self._options):
            text = text.replace(secret, "***")
        return text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, str) and len(value) > 5:
        yield value


def _time(info: Mapping[str, Any]) -> float:
    for field in ("LastModified", "last_modified", "mtime", "updated"):
        if (value := info.get(field)) is not None:
            if isinstance(value, str):
                import datetime

                value = datetime.datetime.fromisoformat(value)
            return float(value.timestamp())
    raise StoreError("the store does not report when an object was written, so garbage cannot be collected from it")
