"""The archive in which a runner sends outputs, beside what Python's own module makes of the same folder."""

import io
import os
import tarfile

import pytest

from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.executors.outputs import extract_outputs
from nemo_airflow.runner.archive import write_folder


@pytest.fixture
def root(tmp_path):
    """A folder with all that an archive can have."""
    root = tmp_path / "outputs"
    (root / "a" / "empty folder").mkdir(parents=True)
    (root / "plain.txt").write_text("content")
    (root / "of one block").write_bytes(b"x" * 512)
    (root / "large.bin").write_bytes(os.urandom(200_000))
    (root / "none").touch()
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "a" / ("long" * 40)).write_text("a long name")
    (root / "a" / "mañana\udce9").write_text("a name that is no ASCII")
    os.utime(root / "plain.txt", (-5, -5))
    os.link(root / "plain.txt", root / "z, the same file")
    (root / "link").symlink_to("plain.txt")
    (root / "link to a folder").symlink_to("a")
    os.mkfifo(root / "pipe")
    return root


def members_of(archive):
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        found = {}
        for member in tar:
            content = tar.extractfile(member).read() if member.isreg() else b""
            name = os.path.normpath(member.name)
            found[name] = (member.type, member.mode, member.size, int(member.mtime), member.linkname, content)
        return found


def test_archive_has_what_tarfile_would_write(root):
    ours, theirs = io.BytesIO(), io.BytesIO()
    write_folder(str(root), ours)
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(root, arcname=".")
    expected = members_of(theirs)
    del expected["."]
    found = members_of(ours)
    link = found.pop("z, the same file")
    assert (link[0], link[4]) == (tarfile.LNKTYPE, "plain.txt")
    del expected["z, the same file"]
    assert found == expected
    types = [found[name][0] for name in found]
    assert types.index(tarfile.REGTYPE) > max(n for n, type in enumerate(types) if type == tarfile.SYMTYPE)
    assert len(ours.getvalue()) % tarfile.RECORDSIZE == 0


def test_archive_is_unpacked_as_it_was_and_a_damaged_header_is_noticed(root, tmp_path):
    (root / "pipe").unlink()
    archive = io.BytesIO()
    write_folder(str(root), archive)
    archive.seek(0)
    names = extract_outputs(archive, tmp_path / "again")
    assert {str(name) for name in names} == {
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or path.is_file()
    }
    for name in names:
        if not (root / name).is_dir():
            assert (tmp_path / "again" / name).read_bytes() == (root / name).read_bytes()
        assert os.lstat(tmp_path / "again" / name).st_mode & 0o111 == os.lstat(root / name).st_mode & 0o111
    data = bytearray(archive.getvalue())
    place = data.index(b"plain.txt\0" + bytes(90))
    data[place] ^= 1
    with pytest.raises(BackendUnavailable, match="arrived incomplete: bad checksum"):
        extract_outputs(io.BytesIO(data), tmp_path / "damaged")


def test_folder_that_is_not_there_is_an_empty_archive(tmp_path):
    archive = io.BytesIO()
    write_folder(str(tmp_path / "none"), archive)
    assert members_of(archive) == {}
