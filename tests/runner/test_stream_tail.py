"""The runner's own copy of the end of its stream."""

import os

import pytest

from nemo_airflow.runner.stream_tail import FOLDER, StreamTail


def kept(folder):
    parts = {int(path.name): path.read_bytes() for path in (folder / FOLDER).iterdir()}
    return min(parts), b"".join(data for _, data in sorted(parts.items()))


def test_all_of_a_short_stream_is_kept(tmp_path):
    tail = StreamTail(str(tmp_path), 7)
    tail.write(b"one ")
    tail.write(b"two")
    assert kept(tmp_path) == (7, b"one two")


def test_the_end_of_a_long_stream_is_kept_and_no_more_than_twice_as_much(tmp_path):
    tail = StreamTail(str(tmp_path), 0, part=100)
    whole = b""
    for number in range(200):
        piece = f"piece {number}\n".encode()
        tail.write(piece)
        whole += piece
        begin, data = kept(tmp_path)
        assert whole[begin:] == data
        assert min(len(whole), 100) <= len(data) < 220


@pytest.mark.lab  # mounts a disk, as the lab does
def test_full_disk_stops_neither_the_stream_nor_the_job(small_disk):
    tail = StreamTail(str(small_disk), 0)
    tail.write(b"one ")
    (small_disk / "filler").write_bytes(b"x" * (192 << 10))
    data = b"".join(b"%d " % number for number in range(20_000))  # 107 KiB, for less than 64 KiB of room
    tail.write(data)
    assert os.statvfs(small_disk).f_bavail == 0
    begin, part = kept(small_disk)
    assert (begin, (b"one " + data).startswith(part)) == (0, True)
    (small_disk / "filler").unlink()
    tail.write(b"later")  # what follows a gap would be taken for what stood there
    assert kept(small_disk) == (0, part)
