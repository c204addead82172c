"""Unpacks the job's package. What is in it came from outside: nothing may land out of the folder."""

import contextlib
import os
import subprocess
import sys
import tarfile
import tempfile
from typing import IO, Any, Iterator, List, Mapping, Set, cast

REMOVED = ".nemo_airflow_removed"
"""First member of an archive of changes: the paths that are gone, each behind a zero byte."""


_END = 1024
"""Bytes of zeros at the end of a tar archive."""

_TRIAL = bytes.fromhex("28b52ffd004809000061 28b52ffd004809000062")
"""``ab`` in two frames, as packages have many."""


class UnpackError(ValueError):
    """The package is not one, or a member of it would land where it must not."""


class ZstdUnreadableError(UnpackError):
    """The package is packed with zstd, and nothing here reads that.

    Attributes:
        failure: The kind of failure that this is, as the end record has it.
    """

    failure = "package"


def unpack_package(folder: str, package: Mapping[str, Any], into: str) -> None:
    """Unpacks a package that lies in a job's folder: one archive, or that of another package and the changes since.

    Args:
        folder: The job's folder.
        package: The package as the job's JSON has it.
        into: Where to.

    Raises:
        UnpackError: See :func:`unpack`.
        OSError: See :func:`unpack`.
    """
    archive = _laid(folder, "package", package["format"])
    if package.get("base"):
        unpack(_laid(folder, "package.base", package["format"]), into)
        unpack(archive, into, changes=True)
    else:
        unpack(archive, into)


def _laid(folder: str, name: str, format: str) -> str:
    """Returns where an archive is; a host that had the same content as ``tar.gz`` has laid that there."""
    path, plainer = (os.path.join(folder, f"{name}.{ending}") for ending in (format, "tar.gz"))
    return plainer if not os.path.exists(path) and os.path.exists(plainer) else path


def unpack(archive: str, into: str, changes: bool = False) -> None:
    """Unpacks a ``tar.gz`` or ``tar.zst`` into a folder.

    Args:
        archive: The archive.
        into: The folder.
        changes: Whether it is an archive of changes, to be made to what is in the folder.

    Raises:
        UnpackError: A member leaves the folder, links out of it, or is neither file, folder nor link.
        ZstdUnreadableError: Nothing here reads zstd.
        OSError: The archive cannot be read, or the disk is full.
    """
    root = os.path.realpath(into)
    links: List[str] = []
    whole: Set[str] = {root}
    try:
        with _opened(archive) as tar:
            # Python's own filters differ from version to version; what counts is checked here.
            tar.extraction_filter = lambda member, path: member
            for member in tar:
                if changes:
                    _remove(_paths_of(tar, member), root)
                    changes = False
                    continue
                _check(member, root)
                _make_room(member, root, whole)
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                tar.extract(member, root)
                if member.issym():
                    links.append(member.name)
    except (tarfile.TarError, EOFError) as error:
        raise UnpackError(f"{os.path.basename(archive)} is not a package: {error}") from error
    for name in links:
        # Again, now that all members are on the disk: a link may lead out by way of another.
        if not _inside(os.path.realpath(os.path.join(root, name)), root):
            os.unlink(os.path.join(root, name))
            raise UnpackError(f"member {name!r} links out of the package's folder")


@contextlib.contextmanager
def _opened(archive: str) -> Iterator[tarfile.TarFile]:
    if not archive.endswith(".zst"):
        with tarfile.open(archive, "r:*") as tar:
            yield tar
        return
    # As a stream: a disk that has room for the files need not have it for a second, plain archive.
    with open(archive, "rb") as packed, _plain(packed) as plain:
        stream = _Stream(plain)
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as tar:
            yield tar
        stream.finish(archive)


class _Stream:
    """A plain archive as it comes: what unpacks zstd may take a file that is cut off for one that ends there."""

    def __init__(self, plain: IO[bytes]) -> None:
        self._plain = plain
        self._end = b""

    def read(self, size: int) -> bytes:
        data = self._plain.read(size)
        self._end = (self._end + data)[-_END:]
        return data

    def finish(self, archive: str) -> None:
        """Reads what is left, which has to end as archives do."""
        while self.read(1 << 16):
            continue
        if self._end != bytes(_END):
            raise UnpackError(f"{os.path.basename(archive)} is cut off")


def reads_zstd() -> bool:
    """Returns whether :func:`unpack` reads ``tar.zst`` here; found out by reading some.

    Raises:
        OSError: There is no room for a temporary file.
    """
    with tempfile.TemporaryFile() as packed:
        packed.write(_TRIAL)
        packed.seek(0)
        try:
            with _plain(packed) as plain:
                return plain.read() == b"ab"
        except Exception:  # noqa: BLE001 - whatever a broken or an old installation raises, it does not read zstd
            return False


@contextlib.contextmanager
def _plain(packed: IO[bytes]) -> Iterator[IO[bytes]]:
    """Reads zstd with what is here: Python 3.14's own module, the package zstandard, or the program."""
    with contextlib.ExitStack() as stack:
        plain: Any
        try:
            if sys.version_info >= (3, 14):
                from compression import zstd

                plain = stack.enter_context(zstd.open(packed))
            else:
                import zstandard

                reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
                plain = stack.enter_context(reader)
        except ImportError:
            plain = stack.enter_context(_plain_by_program(packed))
        yield plain


@contextlib.contextmanager
def _plain_by_program(packed: IO[bytes]) -> Iterator[IO[bytes]]:
    command = ["zstd", "-dcq"]
    try:
        process = subprocess.Popen(command, stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except (FileNotFoundError, PermissionError) as error:
        raise ZstdUnreadableError(
            "the package is packed with zstd, and nothing here reads that: use Python 3.14, "
            "install the package zstandard or the program zstd, or package with format='tar.gz'"
        ) from error
    broken = None
    with process:
        out, complaints = cast("IO[bytes]", process.stdout), cast("IO[bytes]", process.stderr)
        try:
            yield out
        except (tarfile.TarError, UnpackError) as error:  # what the program complains of is nearer to the cause
            broken = error
        while out.read(1 << 20):
            continue  # padding after the archive's end
        said = complaints.read().decode("utf-8", "replace").strip()
    if process.returncode:
        raise UnpackError(f"the program zstd cannot unpack the package: {said}") from broken
    if broken is not None:
        raise broken


def _check(member: tarfile.TarInfo, root: str) -> None:
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise UnpackError(f"member {member.name!r} is neither a file, a folder nor a link")
    path = os.path.normpath(os.path.join(root, member.name))
    if os.path.isabs(member.name) or not _inside(path, root):
        raise UnpackError(f"member {member.name!r} leaves the package's folder")
    if member.issym() or member.islnk():
        base = os.path.dirname(path) if member.issym() else root
        target = os.path.normpath(os.path.join(base, member.linkname))
        if os.path.isabs(member.linkname) or not _inside(target, root):
            raise UnpackError(f"member {member.name!r} links to {member.linkname!r}, out of the package's folder")


def _make_room(member: tarfile.TarInfo, root: str, whole: Set[str]) -> None:
    """Refuses a member below a link, and deletes the file that is in its place.

    Args:
        member: The member.
        root: The folder.
        whole: Folders that are known to be no links, nor below any; grows.
    """
    path = os.path.normpath(os.path.join(root, member.name))
    parent = os.path.dirname(path)
    if parent not in whole:
        if os.path.realpath(parent) != parent:
            raise UnpackError(f"member {member.name!r} is below a link, and may leave the package's folder")
        os.makedirs(parent, exist_ok=True)
        whole.add(parent)
    if member.isdir():
        return
    if member.islnk() and not _inside(os.path.realpath(os.path.join(root, member.linkname)), root):
        raise UnpackError(f"member {member.name!r} links to {member.linkname!r}, out of the package's folder")
    with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
        os.unlink(path)


def _paths_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> List[str]:
    """Returns the paths that an archive of changes says are gone."""
    file = tar.extractfile(member) if member.name == REMOVED and member.isfile() else None
    if file is None:
        raise UnpackError(f"the archive of changes begins with {member.name!r} in place of what is removed")
    return [os.fsdecode(path) for path in file.read().split(b"\0")[1:]]


def _remove(paths: List[str], root: str) -> None:
    """Deletes files, and the folders that this leaves empty."""
    for name in paths:
        path = os.path.normpath(os.path.join(root, name))
        parent = os.path.dirname(path)
        if path == root or not _inside(path, root) or not _inside(os.path.realpath(parent), root):
            raise UnpackError(f"{name!r} is to be removed, and leaves the package's folder")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with contextlib.suppress(OSError):  # where there is something left
            while parent != root:
                os.rmdir(parent)
                parent = os.path.dirname(parent)


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root + os.sep)
