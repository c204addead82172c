"""What a job does with the artifacts that it is given, before its function is called."""

import hashlib
import os
import time

import pytest

from nemo_airflow.runner import Artifact, digests, inputs


@pytest.fixture
def sent(tmp_path):
    """A file as it was sent to a host once, some time ago, and its artifact."""
    path = tmp_path / "packages" / "model.file"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path, Artifact(hashlib.sha256(b"weights").hexdigest(), 7, file="model.bin", name="model")


@pytest.fixture
def read(monkeypatch):
    """The paths whose bytes were read for a digest."""
    paths = []
    real = digests.sha256_of
    monkeypatch.setattr(digests, "sha256_of", lambda path: paths.append(path) or real(path))
    return paths


def bring(folder, sent):
    path, given = sent
    folder.mkdir()
    os.link(path, folder / "input.file")
    archives = [(given.digest, "file", 7, "input.file")]
    inputs.bring(str(folder), {"version": 1, "root": given.to_json()}, archives, None, print, lambda: False)
    [found] = (folder / "inputs").glob("*/model.bin")
    return found


def test_a_file_is_read_by_the_first_job_of_a_host_alone(sent, read, tmp_path):
    first = bring(tmp_path / "first", sent)
    assert first.read_bytes() == b"weights"
    assert len(read) == 1
    second = bring(tmp_path / "second", sent)
    assert second.samefile(sent[0])
    assert not os.stat(second).st_mode & 0o222
    assert len(read) == 1


@pytest.mark.parametrize("content", [b"WEIGHTS", b"more weights"])
def test_a_file_that_was_written_to_since_is_read_and_refused(sent, tmp_path, content):
    bring(tmp_path / "first", sent)
    sent[0].write_bytes(content)
    with pytest.raises(inputs.InputError, match="damaged"):
        bring(tmp_path / "second", sent)


def test_what_was_written_just_now_is_not_trusted_by_its_time(sent, read, tmp_path):
    now = time.time() + 60  # a clock that is ahead, as on another machine
    os.utime(sent[0], (now, now))
    bring(tmp_path / "first", sent)
    bring(tmp_path / "second", sent)
    assert len(read) == 2


def test_a_disk_without_extended_attributes_costs_a_reading_each(sent, read, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    monkeypatch.setattr(os, "getxattr", refuse)
    bring(tmp_path / "first", sent)
    bring(tmp_path / "second", sent)
    assert len(read) == 2
