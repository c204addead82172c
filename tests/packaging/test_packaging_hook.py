"""The code of a DAG is packaged from its bundle, at the bundle's version."""

import dataclasses
import types

import pytest
from airflow.providers.git.bundles.git import GitDagBundle
from packaging_cases import commit_files, lay, run_git

from nemo_airflow import GitArchivePackager, HybridPackager, LocalExecutor, PatternPackager, SSHExecutor
from nemo_airflow.hooks.packaging import PackagingHook
from nemo_airflow.packaging import PackageStore
from nemo_airflow.packaging.archive import writes_zstd
from nemo_airflow.store import open_store


@pytest.fixture
def source(tmp_path):
    commit_files(tmp_path / "library", {"code.py": "library"})
    commit_files(tmp_path / "source", {"dags/dag.py": "dag", "dags/conf/a.yaml": "a: 1\n", "top.py": "top"})
    run_git(tmp_path / "source", "submodule", "add", "-q", str(tmp_path / "library"), "dags/library")
    run_git(tmp_path / "source", "commit", "-q", "-m", "library")
    return tmp_path / "source"


@pytest.fixture
def bundle(source, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(tmp_path / "bundles"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.file.allow")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "always")
    version = run_git(source, "rev-parse", "HEAD")
    commit_files(source, {"dags/dag.py": "newer than the version of the run"})

    def make(**options):
        made = GitDagBundle(name="b", tracking_ref="main", repo_url=str(source), version=version, **options)
        made.initialize()
        return {"ti": types.SimpleNamespace(bundle_instance=made)}

    return make


@pytest.fixture
def package(store, monkeypatch, tmp_path):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    return lambda packager, context: PackagingHook(packager, store).package(context)


def test_a_git_bundle_is_packaged_at_its_version_though_its_checkout_has_no_git(bundle, package, contents):
    context = bundle(subdir="dags")
    assert not (context["ti"].bundle_instance.repo_path / ".git").exists()
    shipped = contents(package(GitArchivePackager(include_submodules=False), context))
    assert shipped == {"dag.py": b"dag", "conf/a.yaml": b"a: 1\n"}
    assert contents(package(GitArchivePackager(include_submodules=False, subpath="conf"), context)) == {
        "a.yaml": b"a: 1\n"
    }


def test_zstd_is_taken_where_the_job_is_known_to_read_it(bundle, store, monkeypatch, tmp_path):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    assert not LocalExecutor(python="other").reads_zstd
    assert not SSHExecutor(ssh_conn_id="host").reads_zstd
    assert LocalExecutor().reads_zstd is writes_zstd()
    context = bundle(subdir="dags")

    def format_of(packager, **known):
        return PackagingHook(packager, store, **known).package(context).format

    open_packager = GitArchivePackager(include_submodules=False)
    assert format_of(open_packager, reads_zstd=True) == ("tar.zst" if writes_zstd() else "tar.gz")
    assert format_of(open_packager) == "tar.gz"
    assert format_of(dataclasses.replace(open_packager, format="tar.gz"), reads_zstd=True) == "tar.gz"
    monkeypatch.setenv("NEMO_AIRFLOW_PACKAGE_FORMAT", "tar.gz")
    assert format_of(open_packager, reads_zstd=True) == "tar.gz"


@pytest.mark.parametrize("subdir", [None, "dags"])
def test_its_submodules_are_shipped_at_the_commits_of_that_version(bundle, package, contents, subdir):
    shipped = contents(package(GitArchivePackager(), bundle(submodules=True, subdir=subdir)))
    below = "" if subdir else "dags/"
    assert shipped[f"{below}library/code.py"] == b"library"
    assert shipped[f"{below}dag.py"] == b"dag"


def test_the_parts_of_a_hybrid_come_from_the_bundle_too(bundle, package, contents):
    packager = HybridPackager(
        sub_packagers={"": GitArchivePackager(include_submodules=False), "more": PatternPackager(include=["*.yaml"])}
    )
    shipped = contents(package(packager, bundle(subdir="dags")))
    assert shipped == {"dag.py": b"dag", "conf/a.yaml": b"a: 1\n", "more/conf/a.yaml": b"a: 1\n"}


def test_both_archives_of_changes_go_to_the_shared_store(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    lay(tmp_path / "code", {"padding.bin": bytes(1 << 20), "train.py": "1"})
    context = {"ti": types.SimpleNamespace(bundle_instance=types.SimpleNamespace(path=tmp_path / "code"))}
    hook = PackagingHook(PatternPackager())
    hook.package(context)
    lay(tmp_path / "code", {"train.py": "22"})
    changed = hook.package(context)
    assert changed.base
    elsewhere = PackageStore(tmp_path / "elsewhere")
    for archive in changed.archives:
        fetched = open_store(str(tmp_path / "shared")).get_package(archive, elsewhere)
        assert fetched.stat().st_size == archive.size
