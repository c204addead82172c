"""Versions of a DAG bundle: each is another checkout, and only what changed since an earlier one is packed and sent."""

import os
import random
import shutil
import types

import pytest
from airflow.providers.git.bundles.git import GitDagBundle
from packaging_cases import commit_files, lay, unpack

from nemo_airflow import GitArchivePackager, HybridPackager, PatternPackager
from nemo_airflow.hooks.packaging import PackagingHook
from nemo_airflow.packaging import PackageStore

LIMIT = 20_000
"""Most bytes that are sent for a version with one changed file."""


def make_files():
    rng = random.Random(7)
    return {f"pkg{n % 7}/file{n:03}.py": rng.randbytes(4000) for n in range(150)}


@pytest.fixture
def source(tmp_path):
    commit_files(tmp_path / "source", {f"dags/{name}": data for name, data in make_files().items()})
    return tmp_path / "source"


@pytest.fixture
def package_version(source, tmp_path, monkeypatch, store):
    """Packages a version as its task does, in a checkout of its own."""
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(tmp_path / "bundles"))
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))

    def package(packager, version, store=store, name="b"):
        bundle = GitDagBundle(name=name, tracking_ref="main", repo_url=str(source), version=version, subdir="dags")
        bundle.initialize()
        return PackagingHook(packager, store).package({"ti": types.SimpleNamespace(bundle_instance=bundle)})

    return package


def one_more_version(source, number=1):
    return commit_files(source, {"dags/train.py": f"print({number})\n"})


def bytes_to_send(package):
    return package.size - package.base_size


PACKAGERS = [
    GitArchivePackager(),
    PatternPackager(),
    HybridPackager(sub_packagers={"": GitArchivePackager(), "more": PatternPackager(include=["*.yaml", "train.py"])}),
]


@pytest.mark.parametrize("packager", PACKAGERS, ids=lambda packager: packager.kind)
def test_the_next_version_of_a_git_bundle_sends_only_what_changed(source, package_version, store, packager, tmp_path):
    versions = [one_more_version(source, number) for number in (1, 22, 333)]
    first, second, third = [package_version(packager, version) for version in versions]
    assert not first.base
    assert first.size > 500_000
    assert [second.base, third.base] == [first.digest] * 2
    assert max(bytes_to_send(second), bytes_to_send(third)) < LIMIT
    assert unpack(third, store, tmp_path / "job")["train.py"] == (b"print(333)\n", False)
    elsewhere = PackageStore(tmp_path / "elsewhere")
    at_once = package_version(packager, versions[2], elsewhere)
    assert (at_once.digest, at_once.base) == (third.digest, "")


def test_a_version_that_was_found_in_the_store_is_a_base_as_well(source, package_version, store):
    version = one_more_version(source)
    first = package_version(GitArchivePackager(), version)
    shutil.rmtree(store.folder / ".notes")
    assert package_version(GitArchivePackager(), version) == first
    assert package_version(GitArchivePackager(), one_more_version(source, 2)).base == first.digest


def test_a_version_that_another_packager_has_packed_is_a_base_as_well(source, package_version, store):
    version = one_more_version(source)
    first = package_version(PatternPackager(), version)
    assert package_version(GitArchivePackager(), version).digest == first.digest
    changed = package_version(GitArchivePackager(), one_more_version(source, 2))
    assert changed.base == first.digest
    assert bytes_to_send(changed) < LIMIT


def test_folders_of_versions_without_git_send_only_what_changed(tmp_path, store, unpacked):
    files = make_files()
    lay(tmp_path / "versions" / "1", {**files, "train.py": "print(1)\n"})
    lay(tmp_path / "versions" / "2", {**files, "train.py": "print(2)\n"})
    first = PatternPackager().package(store, root=tmp_path / "versions" / "1")
    second = PatternPackager().package(store, root=tmp_path / "versions" / "2")
    assert second.base == first.digest
    assert bytes_to_send(second) < LIMIT
    assert unpacked(second)["train.py"] == (b"print(2)\n", False)


def test_many_bundles_of_one_machine_do_not_displace_each_others_bases(tmp_path, store):
    rng = random.Random(3)
    for number in range(20):
        for version in (1, 2):
            lay(tmp_path / f"b{number}" / str(version), {"data.bin": rng.randbytes(300_000), "train.py": f"{version}"})
        shutil.copyfile(tmp_path / f"b{number}/1/data.bin", tmp_path / f"b{number}/2/data.bin")

    def package(number, version):
        root = tmp_path / f"b{number}" / str(version)
        return PatternPackager().package(store, root=root, bundle=f"bundle{number}")

    firsts = [package(number, 1) for number in range(20)]
    assert [package(number, 2).base for number in range(20)] == [first.digest for first in firsts]


def test_each_version_leaves_no_notes_of_a_git_bundle(source, package_version, store):
    package_version(GitArchivePackager(), one_more_version(source))
    before = sorted(os.listdir(store.folder / ".notes"))
    for number in range(2, 5):
        package_version(GitArchivePackager(), one_more_version(source, number))
    assert sorted(os.listdir(store.folder / ".notes")) == before
