"""Packages and outputs in a folder that two Unix users share, as a worker and a triggerer or ``run_as_user`` do."""

import concurrent.futures.thread  # noqa: F401 - what is not loaded another user may not be able to load
import contextlib
import multiprocessing
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from packaging_cases import commit_files, lay

from nemo_airflow import GitArchivePackager, PatternPackager
from nemo_airflow.exceptions import StoreError
from nemo_airflow.job import Package
from nemo_airflow.packaging import PackageStore
from nemo_airflow.store import open_store
from nemo_airflow.store.trees import get_tree, put_tree

pytestmark = pytest.mark.lab  # to become another user takes root, which the lab takes too

ONE, OTHER, GROUP = 64801, 64802, 64810
HOURS_AGO = 3 * 3600


@pytest.fixture
def folder(monkeypatch):
    """A folder that other users reach, unlike those of pytest."""
    path = Path(tempfile.mkdtemp(prefix="nemo-airflow-users-"))
    path.chmod(0o755)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")  # the repository is root's
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "*")
    monkeypatch.setenv("HOME", str(path))
    commit_files(path / "code", {"train.py": "x = 1\n", "data.bin": bytes(300_000)})
    yield path
    shutil.rmtree(path)


@pytest.fixture
def shared(folder):
    """A folder that both users may write, by their group."""
    path = folder / "store"
    path.mkdir()
    os.chown(path, ONE, GROUP)
    path.chmod(0o770)
    return path


def as_user(uid, call, *arguments):
    """Returns what a call returns, or raises what it raises, in a process of a user and the group of both."""
    answers, ours = multiprocessing.get_context("fork").Pipe(duplex=False)

    def run():
        os.setgroups([GROUP])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.umask(0o022)
        try:
            ours.send((True, call(*arguments)))
        except (StoreError, OSError) as error:
            ours.send((False, error))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    ours.close()
    with contextlib.closing(answers):
        good, value = answers.recv()
    process.join(300)
    if not good:
        raise value
    return value


def package(folder, store):
    return GitArchivePackager(path=str(folder / "code"), uncommitted="include").package(PackageStore(store))


def age(store):
    """Makes all files of a store as old as those that were wanted hours ago."""
    for path in store.rglob("*"):
        if path.is_file():
            about = path.stat()
            os.utime(path, (about.st_atime - HOURS_AGO, about.st_mtime - HOURS_AGO))


def test_what_one_user_has_packaged_the_other_reads_wants_and_packages_anew(folder, shared):
    first = as_user(ONE, package, folder, shared)
    age(shared)
    assert as_user(OTHER, package, folder, shared) == first
    archive = PackageStore(shared).path(first.digest)
    assert archive.stat().st_mtime > (folder / "code").stat().st_mtime - 60  # wanted, so that it is not pruned
    assert as_user(OTHER, archive.read_bytes) == archive.read_bytes()
    lay(folder / "code", {"train.py": "x = 2\n"})
    changed = as_user(OTHER, package, folder, shared)
    assert changed.base == first.digest
    assert as_user(ONE, package, folder, shared) == changed


def test_what_is_made_in_a_store_has_the_permissions_of_the_store(folder, shared):
    as_user(ONE, package, folder, shared)
    for path in (path for path in shared.rglob("*") if path.suffix != ".index"):  # that is git's, one a user
        about = path.stat()
        assert (stat.S_IMODE(about.st_mode), about.st_gid) == (0o770 if path.is_dir() else 0o660, GROUP), path


def test_a_store_that_was_made_by_the_umask_can_be_read_by_the_other(folder):
    (folder / "store").mkdir()
    os.chown(folder / "store", ONE, ONE)
    store = folder / "store"
    lay(folder / "plain", {"a.py": "a"})
    made = as_user(ONE, lambda: PatternPackager(path=str(folder / "plain")).package(PackageStore(store)))
    assert as_user(OTHER, PackageStore(store).has, made.digest)
    assert as_user(OTHER, PackageStore(store).path(made.digest).read_bytes)


def test_a_store_that_the_other_may_not_write_is_named_with_what_to_do(folder):
    store = folder / "store"
    store.mkdir()
    os.chown(store, ONE, ONE)
    as_user(ONE, package, folder, store)
    lay(folder / "code", {"train.py": "x = 2\n"})
    with pytest.raises(StoreError, match=rf"^user .*{OTHER}.* may not use {store}/.*'chgrp -R GROUP {store} && chmod"):
        as_user(OTHER, package, folder, store)
    for archive in store.rglob("*.tar.gz"):
        archive.chmod(0o600)
        with pytest.raises(StoreError, match=f"may not use {archive}"):
            as_user(OTHER, PackageStore(store).has, archive.name.partition(".")[0])


def test_files_from_before_the_folder_was_shared_are_replaced(folder, shared):
    first = as_user(ONE, package, folder, shared)
    for path in shared.rglob("*"):
        path.chmod(0o775 if path.is_dir() else 0o644 if path.parent.name == ".locks" else 0o600)
    assert as_user(OTHER, package, folder, shared).digest == first.digest
    archive = PackageStore(shared).path(first.digest)
    assert archive.stat().st_uid == OTHER
    assert as_user(ONE, archive.read_bytes)


def outputs(folder):
    lay(folder, {"model.bin": bytes(300_000), "deep/a.txt": "a"})
    return folder


@pytest.mark.parametrize("mode", [0o644, 0o664])
def test_outputs_that_one_has_kept_the_other_keeps_and_fetches_also_hours_later(folder, shared, mode):
    outputs(folder / "outputs")
    digest = as_user(ONE, lambda: put_tree(open_store(str(shared)), folder / "outputs"))
    for path in shared.rglob("*"):
        if path.is_file():
            path.chmod(mode)  # 0o644: as a store has them that was not always shared
    age(shared)
    assert as_user(OTHER, lambda: put_tree(open_store(str(shared)), folder / "outputs")) == digest
    assert all(
        entry.wanted_at > (folder / "outputs").stat().st_mtime - 60
        for entry in open_store(str(shared)).entries("blobs")
    )
    into = folder / "into"
    into.mkdir()
    into.chmod(0o777)
    assert len(as_user(OTHER, lambda: get_tree(open_store(str(shared)), digest, into))) == 2


def test_a_shared_store_that_may_only_be_read_serves_packages(folder, shared):
    made = as_user(ONE, package, folder, shared)
    store = folder / "readable"
    store.mkdir()
    os.chown(store, ONE, ONE)
    archive = PackageStore(shared).path(made.digest)
    as_user(ONE, lambda: open_store(str(store)).put_package(made, archive))
    age(store)
    cache = folder / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    fetched = as_user(OTHER, lambda: open_store(str(store)).get_package(Package(made.digest), PackageStore(cache)))
    assert fetched.read_bytes() == archive.read_bytes()
    with pytest.raises(StoreError, match=r"may not use .*chgrp"):
        as_user(OTHER, lambda: open_store(str(store)).hold("x", []))
