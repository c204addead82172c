"""Unpacks the job's package. Its content is untrusted: nothing may be written outside the folder."""

import contextlib
import os
import subprocess
import sys
import tarfile
import tempfile
from typing import IO, Any, Dict, Iterator, List, Mapping, Set, cast

REMOVED = ".nemo_airflow_removed"
"""First member of an archive of changes: the removed paths, each after a zero byte."""


_END = 1024
"""Bytes of zeros at the end of a tar archive."""

_TRIAL = bytes.fromhex("28b52ffd004809000061 28b52ffd004809000062")
"""``ab`` in two frames, as packages have many."""


class UnpackError(ValueError):
    """The archive is not a package, or a member would be written outside the folder."""


class ZstdUnreadableError(UnpackError):
    """The package is packed with zstd, which this environment cannot read.

    Attributes:
        failure: The kind of failure, as in the end record.
    """

    failure = "package"


def unpack_package(folder: str, package: Mapping[str, Any], into: str) -> None:
    """Unpacks the package in a job's folder: one archive, or an earlier package and an archive of changes.

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
    """Returns the path of an archive; it may be ``tar.gz`` where the host already had that form of the content."""
    path, plainer = (os.path.join(folder, f"{name}.{ending}") for ending in (format, "tar.gz"))
    return plainer if not os.path.exists(path) and os.path.exists(plainer) else path


def unpack(archive: str, into: str, changes: bool = False) -> None:
    """Unpacks a ``tar.gz`` or ``tar.zst`` into a folder.

    Args:
        archive: The archive.
        into: The folder.
        changes: Whether it is an archive of changes to the content of the folder.

    Raises:
        UnpackError: A member leaves the folder, links out of it, or is neither file, folder nor link.
        ZstdUnreadableError: This environment cannot read zstd.
        OSError: The archive cannot be read, or the disk is full.
    """
    root = os.path.realpath(into)
    links: List[str] = []
    whole: Set[str] = {root}
    try:
        with _opened(archive) as tar:
            # Python's own filters differ between versions, so members are checked here.
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
        # Checked again after all members are written: a link may lead out through another link.
        if not _inside(os.path.realpath(os.path.join(root, name)), root):
            os.unlink(os.path.join(root, name))
            raise UnpackError(f"member {name!r} links out of the package's folder")


@contextlib.contextmanager
def _opened(archive: str) -> Iterator[tarfile.TarFile]:
    if not archive.endswith(".zst"):
        with tarfile.open(archive, "r:*") as tar:
            yield tar
        return
    # As a stream: the disk may not have room for the files and a plain archive.
    with open(archive, "rb") as packed, zstd_stream(packed) as plain:
        stream = _Stream(plain)
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as tar:
            yield tar
        stream.finish(archive)


class _Stream:
    """A stream of a plain archive: zstd may not detect that its input was cut off."""

    def __init__(self, plain: IO[bytes]) -> None:
        self._plain = plain
        self._end = b""

    def read(self, size: int) -> bytes:
        data = self._plain.read(size)
        self._end = (self._end + data)[-_END:]
        return data

    def finish(self, archive: str) -> None:
        """Reads the rest, which has to end with the end marker of an archive."""
        while self.read(1 << 16):
            continue
        if self._end != bytes(_END):
            raise UnpackError(f"{os.path.basename(archive)} is incomplete: the job's upload was cut off")


def reads_zstd() -> bool:
    """Returns whether :func:`unpack` can read ``tar.zst`` here, by reading a small archive.

    Raises:
        OSError: The disk has no room for a temporary file.
    """
    with tempfile.TemporaryFile() as packed:
        packed.write(_TRIAL)
        packed.seek(0)
        try:
            with zstd_stream(packed) as plain:
                return plain.read() == b"ab"
        except Exception:  # noqa: BLE001 - whatever a broken or an old installation raises, it does not read zstd
            return False


@contextlib.contextmanager
def zstd_stream(packed: IO[bytes]) -> Iterator[IO[bytes]]:
    """Reads zstd with Python 3.14's own module, the package zstandard, or the program, whichever is here."""
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
            "the package is packed with zstd, which this environment cannot read: use Python 3.14, "
            "install the package zstandard or the program zstd, or package with format='tar.gz'"
        ) from error
    broken = None
    with process:
        out, complaints = cast("IO[bytes]", process.stdout), cast("IO[bytes]", process.stderr)
        try:
            yield out
        except (tarfile.TarError, UnpackError) as error:  # the program's own message is nearer to the cause
            broken = error
        while out.read(1 << 20):
            continue  # padding after the archive's end
        said = complaints.read().decode("utf-8", "replace").strip()
    if process.returncode:
        raise UnpackError(f"the program zstd cannot unpack the package: {said}") from broken
    if broken is not None:
        raise broken


def add_sizes(archive: str, sizes: Dict[str, int], changes: bool = False) -> None:
    """Adds the sizes of the files in an archive, by path; nothing is unpacked.

    Args:
        archive: The archive.
        sizes: Those of the archives before.
        changes: Whether it is an archive of changes to their content.

    Raises:
        UnpackError: It is not a package, or this environment cannot read it.
        OSError: It cannot be read.
    """
    try:
        with _opened(archive) as tar:
            for member in tar:
                if changes:
                    for path in _paths_of(tar, member):
                        sizes.pop(path, None)
                    changes = False
                elif not member.isdir():
                    sizes[member.name] = member.size
    except (tarfile.TarError, EOFError) as error:
        raise UnpackError(f"{os.path.basename(archive)} is not a package: {error}") from error


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
    """Refuses a member below a link, and deletes an existing file at its path.

    Args:
        member: The member.
        root: The folder.
        whole: Folders that are known to be neither links nor below links; grows.
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
    """Returns the paths that an archive of changes removes."""
    file = tar.extractfile(member) if member.name == REMOVED and member.isfile() else None
    if file is None:
        raise UnpackError(f"the archive of changes begins with {member.name!r} instead of the list of removed files")
    return [os.fsdecode(path) for path in file.read().split(b"\0")[1:]]


def _remove(paths: List[str], root: str) -> None:
    """Deletes files, and folders that become empty."""
    for name in paths:
        path = os.path.normpath(os.path.join(root, name))
        parent = os.path.dirname(path)
        if path == root or not _inside(path, root) or not _inside(os.path.realpath(parent), root):
            raise UnpackError(f"{name!r} is listed as removed, but lies outside the package's folder")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with contextlib.suppress(OSError):  # the folder is not empty
            while parent != root:
                os.rmdir(parent)
                parent = os.path.dirname(parent)


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root + os.sep)
