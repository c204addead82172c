"""Unpacks the job's package. What is in it came from outside: nothing may land out of the folder."""

import os
import tarfile


class UnpackError(ValueError):
    """The package is not one, or a member of it would land where it must not."""


def unpack(archive: str, into: str) -> None:
    """Unpacks a ``tar.gz`` into a folder.

    Raises:
        UnpackError: A member leaves the folder, links out of it, or is neither file, folder nor link.
        OSError: The archive cannot be read, or the disk is full.
    """
    root = os.path.realpath(into)
    try:
        with tarfile.open(archive, "r:*") as tar:
            members = []
            for member in tar:
                _check(member, root)
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                members.append(member)
            for member in members:
                # Again, now that earlier members are on the disk: a link among them may lead away.
                parent = os.path.realpath(os.path.dirname(os.path.join(root, member.name)))
                if not _inside(parent, root):
                    raise UnpackError(f"member {member.name!r} leaves the package's folder")
                tar.extract(member, root)
    except tarfile.TarError as error:
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


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root + os.sep)
