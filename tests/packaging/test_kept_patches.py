"""The patch of a dirty tree: kept under its own digest, as long as its package, here and in the shared store."""

import hashlib
import os
import uuid

from airflow.sdk.log import mask_secret
from packaging_cases import commit_files, run_git

from nemo_airflow import GitArchivePackager
from nemo_airflow.cli import main
from nemo_airflow.store import PackageStore, open_store
from nemo_airflow.store.address import publish
from nemo_airflow.store.collection import collect

DAY = 86400.0


def make_old(folder):
    for file in folder.rglob("*"):
        os.utime(file, (0, 0))


def dirty(folder, **options):
    return GitArchivePackager(path=str(folder), uncommitted="include", untracked="include", **options)


def read_patch(store, package):
    return store.path(package.stored_patch, "patch").read_bytes()


def test_two_packages_of_the_same_content_on_two_commits_keep_both_patches(tmp_path, store):
    large = os.urandom(2 << 20)
    code = tmp_path / "code"
    commit_files(code, {"train.py": "print(1)\n"})
    (code / "data.bin").write_bytes(large)
    (code / "u.txt").write_text("u\n")
    first = dirty(code).package(store)
    run_git(code, "add", "u.txt")
    run_git(code, "commit", "-q", "-m", "u")
    second = dirty(code).package(store)
    assert first.digest == second.digest
    assert b"u.txt" in read_patch(store, first)
    assert b"u.txt" not in read_patch(store, second)
    for package in (first, second):
        assert hashlib.sha256(read_patch(store, package)).hexdigest() == package.patch_digest


def test_a_patch_of_latin_1_is_kept_as_bytes_that_git_applies(tmp_path, store):
    code = tmp_path / "code"
    commit_files(code, {"train.py": b"caf\xe9 one\n"})
    (code / "train.py").write_bytes(b"caf\xe9 two\n")
    package = dirty(code).package(store)
    run_git(code, "checkout", "-q", ".")
    run_git(code, "apply", str(store.path(package.stored_patch, "patch")))
    assert (code / "train.py").read_bytes() == b"caf\xe9 two\n"


def test_a_patch_stays_as_long_as_its_package_is_in_use(tmp_path, store):
    code = tmp_path / "code"
    commit_files(code, {"train.py": "print(1)\n"})
    (code / "train.py").write_text("print(2)\n")
    package = dirty(code).package(store)
    make_old(store.folder)
    assert store.has(package.digest, package.format)
    store.prune(DAY)
    assert b"+print(2)" in read_patch(store, package)
    make_old(store.folder)
    store.prune(DAY)
    assert not store.path(package.stored_patch, "patch").exists()


def test_a_patch_goes_to_the_shared_store_with_its_package_and_stays_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    code = tmp_path / "code"
    commit_files(code, {"train.py": "print(1)\n"})
    (code / "train.py").write_text("print(2)\n")
    package = dirty(code).package(PackageStore(tmp_path / "home" / "packages"))
    publish(package)
    shared = open_store(str(tmp_path / "shared"))
    names = {f"packages/{package.digest}.{package.format}", f"packages/{package.stored_patch}.patch"}
    assert {entry.name for entry in shared.entries("packages")} == names
    assert shared.find(package.digest[:12]) == f"packages/{package.digest}.{package.format}"
    make_old(tmp_path / "shared")
    assert not collect(shared, older_than=DAY, keep={package.digest}).records
    assert {entry.name for entry in collect(shared, older_than=DAY).records} == names


def test_a_patch_with_a_secret_that_airflow_knows_stays_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    secret = f"sesame-{uuid.uuid4().hex}"
    mask_secret(secret)
    code = tmp_path / "code"
    commit_files(code, {"train.py": f"TOKEN = '{secret}'\n"})
    (code / "train.py").write_text("TOKEN = None\n")
    store = PackageStore(tmp_path / "home" / "packages")
    package = dirty(code).package(store)
    publish(package)
    assert secret.encode() in read_patch(store, package)
    names = {entry.name for entry in open_store(str(tmp_path / "shared")).entries("packages")}
    assert names == {f"packages/{package.digest}.{package.format}"}


def test_a_kept_package_stays_on_this_machine_with_its_base_and_its_patch(tmp_path, store):
    code = tmp_path / "code"
    commit_files(code, {"data.bin": os.urandom(300 << 10), "train.py": "print(1)\n"})
    dirty(code).package(store)
    (code / "train.py").write_text("print(2)\n")
    package = dirty(code).package(store)
    assert package.base
    make_old(store.folder)
    store.prune(DAY, keep={package.digest})
    assert all(store.has(archive.digest, archive.format) for archive in package.archives)
    assert b"+print(2)" in read_patch(store, package)


def test_a_collection_without_a_reachable_tracking_server_deletes_nothing_on_this_machine(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NEMO_AIRFLOW_STORE", raising=False)
    store = PackageStore(tmp_path / "home" / "packages")
    commit_files(tmp_path / "code", {"train.py": "print(1)\n"})
    package = dirty(tmp_path / "code").package(store)
    make_old(store.folder)
    arguments = ["store", "gc", "--older-than", "1", "--keep-runs", "--tracking-uri", "http://127.0.0.1:9"]
    assert main(arguments) == 2
    assert "cannot be reached" in capsys.readouterr().err
    assert store.path(package.digest, package.format).exists()
