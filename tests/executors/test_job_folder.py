"""A job's folder, laid out by several submits of the same job at the same moment."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nemo_airflow.executors import folder as folders
from nemo_airflow.executors.folder import JobFolder
from nemo_airflow.job import Archive

DATA = bytes(1 << 16)


@pytest.fixture(params=["links", "no links"])
def disk(request, tmp_path, monkeypatch):
    """A folder on a disk with hard links to the store's, and on another."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(folders.os, "link", refuse)
    return tmp_path


def test_an_archive_is_whole_while_other_submits_bring_it_too(disk):
    stored = disk / "stored"
    stored.write_bytes(DATA)
    folder = JobFolder(disk / "job")
    folder.lay_out({})
    archive = Archive("digest", "tar.gz", len(DATA), "package.tar.gz")
    folder.bring(archive, stored)
    ended = threading.Event()

    def read():
        while not ended.is_set():
            assert (folder.path / archive.name).read_bytes() == DATA

    with ThreadPoolExecutor(8) as pool:
        reading = pool.submit(read)
        try:
            for bringing in [pool.submit(folder.bring, archive, stored) for _ in range(300)]:
                bringing.result()
        finally:
            ended.set()
        reading.result()
    assert [path.name for path in folder.path.iterdir()] == [archive.name]
    assert stored.read_bytes() == DATA
