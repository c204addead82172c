"""The shell scripts on jobs' folders, run by this machine's own shell."""

import ctypes
import os
import subprocess

import pytest

from nemo_airflow.executors.base import Cursor
from nemo_airflow.executors.host import folders
from nemo_airflow.job import JobHandle

IN_OPEN = 0x20


@pytest.fixture
def root(tmp_path):
    for key, text in {"a": "0123456789", "b": "abc"}.items():
        (tmp_path / "jobs" / key).mkdir(parents=True)
        (tmp_path / "jobs" / key / "log").write_text(text)
    return tmp_path


def read(root, *places):
    cursors = [Cursor(JobHandle(key, "ssh", "1"), offset, limit) for key, offset, limit in places]
    script = folders.read(str(root), cursors)
    done = subprocess.run(["sh"], input=script.encode(), capture_output=True, check=True)
    return [(chunk.key, chunk.offset, chunk.data.decode()) for chunk in folders.parse_read(done.stdout)]


def test_two_readers_of_one_log_get_each_what_they_lack(root):
    places = [("a", 8, 100), ("b", 0, 100), ("a", 2, 100), ("a", 10, 100)]
    assert read(root, *places) == [("a", 8, "89"), ("b", 0, "abc"), ("a", 2, "23456789")]


def test_no_more_is_read_of_a_log_than_was_asked_for(root):
    assert read(root, ("a", 1, 3), ("b", 1, 1)) == [("a", 1, "123"), ("b", 1, "b")]


def test_log_that_is_not_there_disturbs_no_neighbour(root):
    assert read(root, ("none", 0, 100), ("b", 0, 100)) == [("b", 0, "abc")]


def test_log_is_opened_before_its_size_is_asked(root):
    """A network file system asks its server for the size when a file is opened, and only then."""
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.inotify_init1(os.O_NONBLOCK)
    try:
        assert libc.inotify_add_watch(events, os.fsencode(root / "jobs/a/log"), IN_OPEN) > 0
        assert read(root, ("a", 10, 100)) == []  # there is nothing new, so that nothing else opens it
        assert os.read(events, 4096)
    finally:
        os.close(events)
