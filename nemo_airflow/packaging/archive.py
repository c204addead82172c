"""Writes archives whose bytes depend only on their content, on all processors at once.

The tar stream is cut into blocks of a fixed size, each compressed by itself: as a member of a gzip file, or a frame
of a zstd file. Both formats allow this, and all programs that unpack them support it. Data that looks
compressed already is stored as it is.
"""

from __future__ import annotations

import collections
import concurrent.futures
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO

from nemo_airflow.exceptions import PackagingError, SettingsError
from nemo_airflow.job import Package
from nemo_airflow.packaging.content import LINK, PROGRAM, File, files_of, in_order, package_digest, read, tree_id
from nemo_airflow.store import PackageStore

GZIP, ZSTD = "tar.gz", "tar.zst"
FORMATS = (GZIP, ZSTD)

_BLOCK = {GZIP: 1 << 20, ZSTD: 4 << 20}
_SAMPLE = 8 << 10
_LEVEL = 1
_THREADS = 8
_RECORD = 512
_NAME_FIELD = 100
_SIZE_FIELD = 8**11


def write_archive(files: Mapping[str, bytes], store: PackageStore) -> Package:
    """Packs files in memory, for small ones such as those of a test.

    Args:
        files: Content by path.
        store: Where the archive is kept.
    """
    content = files_of(files)
    digest = package_digest(tree_id(content))
    if not store.has(digest):
        with store.write(digest) as file:
            write_tar(in_order(content), file)
    return Package(digest, GZIP, store.path(digest).stat().st_size)


def write_tar(
    files: Iterable[File], file: BinaryIO, format: str = GZIP, *, first: tuple[str, bytes] | None = None
) -> None:
    """Writes files as an archive, in the given order.

    Args:
        files: The files; their folders have no members of their own.
        file: Where to write.
        format: ``tar.gz`` or ``tar.zst``.
        first: Name and bytes of a member before all others.

    Raises:
        PackagingError: A file has changed since its id was computed.
        SettingsError: This environment cannot write zstd.
    """
    with _Blocks(file, format) as out:
        if first is not None:
            out.write(_header(os.fsencode(first[0]), 0o644, len(first[1]), b"") + first[1] + _padding(len(first[1])))
        for each, data in read(list(files)):
            name = os.fsencode(each.path)
            if each.mode == LINK:
                out.write(_header(name, 0o777, 0, b"".join(data)))
                continue
            out.write(_header(name, 0o755 if each.mode == PROGRAM else 0o644, each.size, b""))
            size = 0
            for block in data:
                out.write(block)
                size += len(block)
            if size != each.size:
                raise PackagingError(f"{each.path} changed during packaging: package again")
            out.write(_padding(size))
        out.write(bytes(2 * _RECORD))


def _header(name: bytes, mode: int, size: int, target: bytes) -> bytes:
    """Returns a member's header in GNU tar's format, which allows names of any bytes and any length."""
    long = b""
    for kind, text in ((b"K", target), (b"L", name)):
        if len(text) > _NAME_FIELD:
            data = text + b"\0"
            long += _record(b"././@LongLink", 0o644, len(data), kind, b"") + data + _padding(len(data))
    kind = b"2" if target else b"0"
    return long + _record(name[:_NAME_FIELD], mode, size, kind, target[:_NAME_FIELD])


def _record(name: bytes, mode: int, size: int, kind: bytes, target: bytes) -> bytes:
    sized = b"%011o\0" % size if size < _SIZE_FIELD else b"\x80\0\0\0" + struct.pack(">Q", size)
    begin = b"%s%07o\x000000000\x000000000\0%s00000000000\0" % (name.ljust(_NAME_FIELD, b"\0"), mode, sized)
    end = kind + target.ljust(_NAME_FIELD, b"\0") + b"ustar  \0"
    checksum = sum(begin) + sum(end) + 8 * 32
    return (b"%s%06o\0 %s" % (begin, checksum, end)).ljust(_RECORD, b"\0")


def _padding(size: int) -> bytes:
    return bytes(-size % _RECORD)


class _Blocks:
    """Cuts a stream into blocks and compresses them on several threads."""

    def __init__(self, file: BinaryIO, format: str) -> None:
        self._file = file
        self._size = _BLOCK[format]
        self._pack = _gzip_block if format == GZIP else _zstd_packer()
        self._pieces: list[bytes] = []
        self._length = 0
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self._packing: collections.deque[concurrent.futures.Future[bytes]] = collections.deque()
        self._most = 2 * min(_THREADS, os.cpu_count() or 1)

    def __enter__(self) -> _Blocks:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._threads is not None:
                self._threads.shutdown(cancel_futures=True)

    def write(self, data: bytes) -> None:
        """Adds data."""
        self._pieces.append(data)
        self._length += len(data)
        if self._length >= self._size:
            whole = memoryview(b"".join(self._pieces))
            full = self._length - self._length % self._size
            for start in range(0, full, self._size):
                self._submit(whole[start : start + self._size])
            self._pieces = [bytes(whole[full:])]
            self._length -= full

    def _submit(self, block: memoryview) -> None:
        if self._threads is None:
            self._threads = concurrent.futures.ThreadPoolExecutor(self._most // 2)
        self._packing.append(self._threads.submit(self._pack, block))
        while len(self._packing) > self._most:
            self._file.write(self._packing.popleft().result())

    def _finish(self) -> None:
        while self._packing:
            self._file.write(self._packing.popleft().result())
        self._file.write(self._pack(memoryview(b"".join(self._pieces))))


def _gzip_block(block: memoryview) -> bytes:
    sample = block[:_SAMPLE]
    packed_already = len(sample) == _SAMPLE and len(zlib.compress(sample, _LEVEL)) > 0.97 * _SAMPLE
    return zlib.compress(block, 0 if packed_already else _LEVEL, 31)


def writes_zstd() -> bool:
    """Returns whether this environment can write zstd."""
    return _zstd_module() is not None or shutil.which("zstd") is not None


def _zstd_module() -> str | None:
    if sys.version_info >= (3, 14):
        return "compression.zstd"
    return "zstandard" if importlib.util.find_spec("zstandard") else None


def _zstd_packer() -> Callable[[memoryview], bytes]:
    name = _zstd_module()
    if name is None and shutil.which("zstd") is None:
        raise SettingsError(
            "format='tar.zst' cannot be written here: install the Python package zstandard, or the program zstd"
        )
    if name is None:
        return _zstd_program
    module = importlib.import_module(name)
    if name == "zstandard":
        # One object for each block: threads must not share them.
        return lambda block: bytes(module.ZstdCompressor(level=_LEVEL).compress(block))
    return lambda block: bytes(module.compress(block, _LEVEL))


def _zstd_program(block: memoryview) -> bytes:
    done = subprocess.run(["zstd", "-q", f"-{_LEVEL}", "-c"], input=block, capture_output=True, check=False)
    if done.returncode:
        raise PackagingError(f"the program zstd failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
