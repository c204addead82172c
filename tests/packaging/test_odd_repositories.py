"""Repositories that are not whole, not sha1, not at a commit, or have others inside."""

import hashlib
import os
import shutil

import pytest
from packaging_cases import commit_files, lay, run_git

from nemo_airflow import GitArchivePackager, HybridPackager, PatternPackager
from nemo_airflow.comparison.code_changes import CodeState, code_changes
from nemo_airflow.exceptions import PackagingError, UncommittedChangesError
from nemo_airflow.packaging import PackageStore


@pytest.fixture
def repository(tmp_path):
    commit_files(tmp_path / "code", {"train.py": "print(1)\n", "pkg/net.py": "x = 1\n", "other/b.py": "b\n"})
    return tmp_path / "code"


@pytest.fixture
def git_calls(tmp_path, monkeypatch):
    """Returns the commands of all git processes so far, also of those that git itself starts."""
    log = tmp_path / "trace"
    (tmp_path / "bin").mkdir()
    real = shutil.which("git")
    lay(tmp_path / "bin", {"git": (f'#!/bin/sh\nGIT_TRACE={log} exec {real} "$@"\n', 0o755)})
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return lambda: log.read_text().splitlines()


def snapshot(folder):
    # Git marks objects as used by their time, also those that it only borrows.
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- a repository inside -----------------------------------------------------------------------------------------------


def test_a_repository_inside_is_ignored_as_other_untracked_files_are(repository, store, contents):
    commit_files(repository / "inner", {"a.py": "a"})
    lay(repository, {".gitignore": "*.so\n", "a.so": "a"})
    run_git(repository, "add", ".gitignore")
    run_git(repository, "commit", "-q", "-m", "ignore")
    ignoring = {"path": str(repository), "untracked": "ignore"}
    expected = {"train.py", "pkg/net.py", "other/b.py", ".gitignore"}
    assert set(contents(GitArchivePackager(**ignoring).package(store))) == expected
    assert set(contents(GitArchivePackager(**ignoring, include=["*.so"]).package(store))) == {*expected, "a.so"}
    with pytest.raises(UncommittedChangesError, match="untracked files: inner/"):
        GitArchivePackager(path=str(repository), include=["*.so"]).package(store)
    with pytest.raises(PackagingError, match=r"inner/ in .* is a repository of its own"):
        GitArchivePackager(path=str(repository), untracked="include", include=["*.so"]).package(store)
    left_out = GitArchivePackager(path=str(repository), untracked="include", exclude=["/inner/"]).package(store)
    assert set(contents(left_out)) == expected


# -- a ref -------------------------------------------------------------------------------------------------------------


def test_a_ref_at_the_checked_out_commit_is_shipped_whatever_the_working_tree_has(repository, store, contents):
    run_git(repository, "tag", "v1")
    lay(repository, {"train.py": "print(2)\n", "new.py": "new"})
    package = GitArchivePackager(path=str(repository), ref="v1").package(store)
    assert contents(package)["train.py"] == b"print(1)\n"
    assert not package.dirty
    with pytest.raises(UncommittedChangesError):
        GitArchivePackager(path=str(repository)).package(store)
    included = GitArchivePackager(path=str(repository), ref="v1", uncommitted="include", untracked="include")
    assert contents(included.package(store))["train.py"] == b"print(2)\n"
    commit_files(repository, {"pkg/net.py": "x = 2\n"})
    assert contents(included.package(store))["train.py"] == b"print(1)\n"


@pytest.mark.parametrize("options", [{}, {"uncommitted": "include", "untracked": "include"}])
def test_a_ref_is_shipped_where_a_branch_without_a_commit_is_checked_out(repository, store, contents, options):
    run_git(repository, "checkout", "-q", "--orphan", "new")
    package = GitArchivePackager(path=str(repository), ref="main", **options).package(store)
    assert contents(package)["train.py"] == b"print(1)\n"
    with pytest.raises(PackagingError, match="has no commit yet: commit first"):
        GitArchivePackager(path=str(repository)).package(store)


# -- a partial clone ---------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    commit_files(tmp_path / "source", {f"d{n}/file{n}.py": f"print({n})\n" for n in range(30)})
    for name in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        run_git(tmp_path / "source", "config", name, "true")
    return tmp_path / "source"


@pytest.mark.parametrize("filter", ["blob:none", "tree:0"])
def test_a_partial_clone_fetches_what_it_lacks_at_once(source, store, contents, tmp_path, git_calls, filter):
    whole = GitArchivePackager(path=str(source)).package(PackageStore(tmp_path / "other"))
    run_git(tmp_path, "clone", "-q", "--bare", f"--filter={filter}", f"file://{source}", "partial.git")
    partial = tmp_path / "partial.git"
    before, calls = snapshot(partial), len(git_calls())
    package = GitArchivePackager(path=str(partial)).package(store)
    assert package.digest == whole.digest
    assert contents(package)["d7/file7.py"] == b"print(7)\n"
    fetches = [line for line in git_calls()[calls:] if "built-in: git fetch " in line]
    assert len(fetches) <= (1 if filter == "blob:none" else 2)
    assert snapshot(partial) == before


def test_a_partial_clone_without_its_remote_says_what_to_do(source, store, tmp_path):
    run_git(tmp_path, "clone", "-q", "--bare", "--filter=blob:none", f"file://{source}", "partial.git")
    source.rename(tmp_path / "moved")
    with pytest.raises(PackagingError, match=r"partial\.git is a partial clone that lacks 30 objects of the commit"):
        GitArchivePackager(path=str(tmp_path / "partial.git")).package(store)


# -- names of sha256 ---------------------------------------------------------------------------------------------------


FILES = {"a.py": "a", "pkg/b.py": "b", "run.sh": ("#!/bin/sh\n", 0o755), "link": "-> a.py"}


@pytest.fixture
def wide(tmp_path):
    (tmp_path / "wide").mkdir()
    run_git(tmp_path / "wide", "init", "-q", "--object-format=sha256")
    commit_files(tmp_path / "wide", FILES)
    return tmp_path / "wide"


def test_the_same_files_have_the_same_digest_with_either_names(wide, store, tmp_path):
    commit_files(tmp_path / "narrow", FILES)
    narrow = GitArchivePackager(path=str(tmp_path / "narrow")).package(PackageStore(tmp_path / "other"))
    package = GitArchivePackager(path=str(wide)).package(store)
    assert package.digest == narrow.digest
    assert PatternPackager(path=str(wide)).package(store).digest == package.digest
    lay(wide, {"a.py": "changed", "new.so": "s"})
    changed = {"uncommitted": "include", "include": ["new.so"]}
    lay(tmp_path / "narrow", {"a.py": "changed", "new.so": "s"})
    for options in (changed, {"uncommitted": "include", "untracked": "include"}):
        digests = {
            GitArchivePackager(path=str(tmp_path / name), **options).package(store).digest
            for name in ("wide", "narrow")
        }
        assert len(digests) == 1


def test_repositories_of_either_names_go_together(wide, store, contents, tmp_path):
    commit_files(tmp_path / "narrow", FILES)
    packagers = {name: GitArchivePackager(path=str(tmp_path / name)) for name in ("narrow", "wide")}
    shipped = contents(HybridPackager(sub_packagers=packagers).package(store))
    assert shipped["wide/pkg/b.py"] == shipped["narrow/pkg/b.py"] == b"b"


# -- comparing with the working tree -----------------------------------------------------------------------------------


def test_a_sparse_checkout_differs_in_nothing_from_its_commit(repository):
    commit = run_git(repository, "rev-parse", "HEAD")
    run_git(repository, "sparse-checkout", "set", "pkg")
    assert not (repository / "other").exists()
    assert code_changes(repository, CodeState(commit), CodeState()) == []
    lay(repository, {"pkg/net.py": "x = 2\n", "pkg/new.py": "n\n"})
    found = [change.to_text() for change in code_changes(repository, CodeState(commit), CodeState())]
    assert found == ["M pkg/net.py (+1 -1)", "A pkg/new.py (+1 -0)"]


def test_comparing_runs_no_filter_of_git_lfs_and_writes_nothing(repository, tmp_path):
    bad = tmp_path / "filter"
    lay(tmp_path, {"filter": (f"#!/bin/sh\ntouch {tmp_path / 'ran'}\ncat\n", 0o755)})
    data = b"weights" * 1000
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(data).hexdigest()}\nsize 7000\n"
    commit = commit_files(
        repository,
        {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "a.bin": pointer, "p.bin": pointer},
    )
    for name in ("clean", "process", "smudge"):
        run_git(repository, "config", f"filter.lfs.{name}", str(bad))
    run_git(repository, "config", "filter.lfs.required", "true")
    (repository / "a.bin").write_bytes(data)  # as checked out by git lfs; p.bin is a pointer that was not fetched
    os.utime(repository / "p.bin")
    before = snapshot(repository)
    assert code_changes(repository, CodeState(commit), CodeState()) == []
    assert snapshot(repository) == before
    assert not (tmp_path / "ran").exists()
    (repository / "a.bin").write_bytes(data + b"more")
    assert [change.path for change in code_changes(repository, CodeState(commit), CodeState())] == ["a.bin"]
