"""What of a repository is shipped: attributes, LFS files, submodules, more files, odd names."""

import dataclasses
import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from packaging_cases import commit_files, lay, run_git, tree

from nemo_airflow import GitArchivePackager, HybridPackager
from nemo_airflow.exceptions import PackagingError, UncommittedChangesError
from nemo_airflow.job import Job, Package, without_patch
from nemo_airflow.packaging import PackageStore
from nemo_airflow.packaging.content import blob_id
from nemo_airflow.packaging.git import packager as git


@pytest.fixture
def repository(tmp_path):
    commit_files(tmp_path / "code", {"train.py": "print(1)\n", "pkg/net.py": "x = 1\n"})
    return tmp_path / "code"


def archived(folder, into, *options):
    """Returns what `git archive` ships."""
    run_git(folder, "archive", "--format=tar", "-o", str(into / "raw.tar"), *options, "HEAD")
    with tarfile.open(into / "raw.tar") as tar:
        tar.extractall(into / "raw", filter="fully_trusted")
    return tree(into / "raw")


def test_attributes_hold_as_for_git_archive(repository, store, unpacked, tmp_path):
    commit_files(
        repository,
        {
            ".gitattributes": "secret export-ignore\n*.md export-ignore\n!keep.md\nversion.txt export-subst\n"
            "/docs/ export-ignore\nkeep.md -export-ignore\n",
            "secret/key": "k",
            "README.md": "r",
            "keep.md": "kept",
            "docs/page.txt": "p",
            "pkg/.gitattributes": "local.txt export-ignore\n",
            "pkg/local.txt": "l",
            "pkg/docs/page.txt": "another",
            "version.txt": "commit $Format:%H$ by $Format:%an$\nrefs $Format:%s$\n",
            "plain.txt": "$Format:%H$",
        },
    )
    package = GitArchivePackager(path=str(repository)).package(store)
    shipped = unpacked(package)
    assert shipped == archived(repository, tmp_path)
    assert shipped["version.txt"][0] == f"commit {package.commit} by a\nrefs work\n".encode()
    assert "secret/key" not in shipped


def test_attributes_of_the_machine_do_not_count(repository, store, contents, monkeypatch, tmp_path):
    commit_files(repository, {".gitattributes": "nothing export-ignore\n"})
    before = GitArchivePackager(path=str(repository)).package(store)
    (repository / ".git" / "info" / "attributes").write_text("*.py export-ignore\n")
    lay(tmp_path / "home", {".gitconfig": f"[core]\n\tattributesFile = {tmp_path}/mine\n"})
    (tmp_path / "mine").write_text("*.py export-ignore\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    after = GitArchivePackager(path=str(repository)).package(PackageStore(tmp_path / "other"))
    assert after.digest == before.digest
    assert "train.py" in contents(before)


def test_attributes_count_also_when_they_are_not_committed(repository, store, contents):
    packager = GitArchivePackager(path=str(repository), uncommitted="include", untracked="include")
    assert set(contents(packager.package(store))) == {"train.py", "pkg/net.py"}
    (repository / ".gitattributes").write_text("pkg export-ignore\n")
    assert set(contents(packager.package(store))) == {"train.py", ".gitattributes"}


def test_attributes_from_above_count_in_a_subpath(repository, store, contents):
    commit_files(repository, {".gitattributes": "pkg/private export-ignore\n", "pkg/private/a": "a"})
    assert set(contents(GitArchivePackager(path=str(repository), subpath="pkg/").package(store))) == {"net.py"}


def lfs_file(repository, name, data, *, stored=True):
    """Commits a pointer, and keeps its content as Git LFS does."""
    oid = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n"
    commit_files(repository, {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", name: pointer})
    if stored:
        lay(repository / ".git" / "lfs" / "objects" / oid[:2] / oid[2:4], {oid: data})
    return pointer.encode()


def test_lfs_pointers_become_their_content(repository, store, contents, tmp_path):
    pointer = lfs_file(repository, "weights/model.bin", os.urandom(5000))
    data = next((repository / ".git" / "lfs").rglob("*/*/*/*")).read_bytes()
    package = GitArchivePackager(path=str(repository)).package(store)
    assert contents(package)["weights/model.bin"] == data
    assert (
        contents(GitArchivePackager(path=str(repository), lfs="pointer").package(store))["weights/model.bin"] == pointer
    )
    with pytest.raises(PackagingError, match=r"has LFS files, and lfs='refuse': weights/model\.bin"):
        GitArchivePackager(path=str(repository), lfs="refuse").package(store)
    # The same content, committed without LFS, has the same digest: it is what is shipped that counts.
    other = tmp_path / "other"
    commit_files(other, contents(package))
    assert GitArchivePackager(path=str(other), lfs="pointer").package(store).digest == package.digest


def test_lfs_content_that_is_not_here_is_named(repository, store):
    lfs_file(repository, "weights/model.bin", b"d" * 5000, stored=False)
    with pytest.raises(PackagingError, match=r"LFS files of .* is not on this machine: weights/model\.bin; run 'git"):
        GitArchivePackager(path=str(repository)).package(store)


def test_lfs_content_that_is_damaged_is_not_shipped(repository, store):
    lfs_file(repository, "model.bin", b"d" * 5000)
    next((repository / ".git" / "lfs").rglob("*/*/*/*")).write_bytes(b"e" * 5000)
    with pytest.raises(PackagingError, match="is not on this machine"):
        GitArchivePackager(path=str(repository)).package(store)


def test_lfs_content_is_found_in_the_working_tree_and_from_a_worktree(repository, store, contents, tmp_path):
    data = os.urandom(3000)
    lfs_file(repository, "model.bin", data)
    run_git(repository, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    assert contents(GitArchivePackager(path=str(tmp_path / "tree")).package(store))["model.bin"] == data
    shutil.rmtree(repository / ".git" / "lfs")
    (repository / "model.bin").write_bytes(data)  # as Git LFS checks it out
    packager = GitArchivePackager(path=str(repository), uncommitted="ignore")
    assert (
        contents(packager.package(PackageStore(tmp_path / "other")), store=PackageStore(tmp_path / "other"))[
            "model.bin"
        ]
        == data
    )


def test_submodules_and_theirs_with_attributes_and_lfs_of_their_own(repository, store, contents, tmp_path, monkeypatch):
    data = os.urandom(2000)
    inner, library = tmp_path / "inner", tmp_path / "library"
    commit_files(inner, {"code.py": "inner", "tests/t.py": "t"})
    lfs_file(inner, "model.bin", data)
    commit_files(library, {"code.py": "library", ".gitattributes": "tests export-ignore\n", "tests/t.py": "t"})
    run_git(library, "submodule", "add", "-q", str(inner), "deep/inner")
    run_git(library, "commit", "-q", "-m", "inner")
    run_git(repository, "submodule", "add", "-q", str(library), "vendor/library")
    run_git(repository, "submodule", "update", "-q", "--init", "--recursive")
    run_git(repository, "commit", "-q", "-m", "library")
    modules = repository / ".git" / "modules" / "vendor" / "library" / "modules" / "deep" / "inner"
    shutil.copytree(inner / ".git" / "lfs", modules / "lfs")
    recorded = GitArchivePackager(path=str(repository)).package(store)
    shipped = contents(recorded)
    assert shipped["vendor/library/code.py"] == b"library"
    assert shipped["vendor/library/deep/inner/code.py"] == b"inner"
    assert shipped["vendor/library/deep/inner/tests/t.py"] == b"t"
    assert shipped["vendor/library/deep/inner/model.bin"] == data
    assert "vendor/library/tests/t.py" not in shipped
    inside = GitArchivePackager(path=str(repository), subpath="vendor/library/deep").package(store)
    assert set(contents(inside)) == {
        f"inner/{name}" for name in ("code.py", "tests/t.py", "model.bin", ".gitattributes")
    }
    without = GitArchivePackager(path=str(repository), include_submodules=False).package(store)
    assert set(contents(without)) == {"train.py", "pkg/net.py", ".gitmodules"}

    commit_files(repository / "vendor" / "library", {"code.py": "newer"})
    moved = GitArchivePackager(path=str(repository), uncommitted="include").package(store)
    assert contents(moved)["vendor/library/code.py"] == b"newer"
    assert "Subproject commit" in moved.patch
    assert GitArchivePackager(path=str(repository), uncommitted="ignore").package(store).digest == recorded.digest
    # Whatever was changed just now counts as settled.
    monkeypatch.setattr("nemo_airflow.packaging.git.state.YOUNG", -(10**18))
    packager = GitArchivePackager(path=str(repository), uncommitted="include")
    packager.package(store)
    commit_files(repository / "vendor" / "library", {"code.py": "newest"})
    assert contents(packager.package(store))["vendor/library/code.py"] == b"newest"
    (repository / "vendor" / "library" / "code.py").write_text("not committed there")
    with pytest.raises(UncommittedChangesError, match=r"submodules of .* have uncommitted changes: vendor/library"):
        GitArchivePackager(path=str(repository), uncommitted="include").package(store)


def test_nothing_is_written_into_submodules(repository, store, tmp_path):
    commit_files(tmp_path / "library", {"code.py": "library"})
    run_git(repository, "submodule", "add", "-q", str(tmp_path / "library"), "library")
    run_git(repository, "commit", "-q", "-m", "library")
    os.utime(repository / "library" / "code.py")
    before = {path: path.lstat().st_mtime_ns for path in repository.rglob("*")}
    GitArchivePackager(path=str(repository)).package(store)
    assert {path: path.lstat().st_mtime_ns for path in repository.rglob("*")} == before


def test_submodules_of_a_bare_clone_are_taken_from_the_bundles_checkout(repository, store, contents, tmp_path):
    commit_files(tmp_path / "library", {"code.py": "library"})
    run_git(repository, "submodule", "add", "-q", str(tmp_path / "library"), "library")
    run_git(repository, "commit", "-q", "-m", "library")
    run_git(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
    packager = GitArchivePackager(path=str(tmp_path / "bare.git"))
    with pytest.raises(PackagingError, match="submodule library is not checked out"):
        packager.package(store)
    assert contents(packager.package(store, root=repository))["library/code.py"] == b"library"


def test_included_patterns_bring_files_that_git_does_not_track(repository, store, contents):
    commit_files(repository, {".gitignore": "build/\n*.log\n"})
    lay(repository, {"build/a.so": "built", "build/a.tmp": "t", "x.log": "l", "data/table.csv": "1", "data/other": "o"})
    packager = GitArchivePackager(path=str(repository), include=["build/*.so", "*.csv"], untracked="ignore")
    package = packager.package(store)
    assert set(contents(package)) == {"train.py", "pkg/net.py", ".gitignore", "build/a.so", "data/table.csv"}
    assert not package.dirty
    assert package.included == {"build/a.so": blob_id(b"built"), "data/table.csv": blob_id(b"1")}
    assert packager.package(store) == package
    lay(repository, {"build/a.so": "built again"})
    again = packager.package(store)
    assert contents(again)["build/a.so"] == b"built again"
    assert again.included == {**package.included, "build/a.so": blob_id(b"built again")}
    lay(repository, {"pkg/b.so": "b"})
    part = dataclasses.replace(packager, subpath="pkg", include=["*.so"])
    assert HybridPackager(sub_packagers={"lib": part}).package(store).included == {"lib/b.so": blob_id(b"b")}
    (repository / "pkg/b.so").unlink()
    with pytest.raises(UncommittedChangesError, match=r"untracked files: data/other$|untracked files: data/other;"):
        GitArchivePackager(path=str(repository), include=["build/*.so", "*.csv"]).package(store)


def test_the_list_of_included_files_stays_out_of_jobs_and_records_and_is_bounded(repository, store, monkeypatch):
    commit_files(repository, {".gitignore": "build/\n"})
    lay(repository, {"build/a.so": "a", "build/b.so": "b"})
    packager = GitArchivePackager(path=str(repository), include=["build/*.so"])
    package = packager.package(store)
    assert "a.so" not in Job(key="k", name="n", plan={}, package=package).dumps()
    public = without_patch(package.to_json())
    assert (public["included_files"], "included" in public) == (2, False)
    monkeypatch.setattr(git, "_LISTED", 1)
    lay(repository, {"build/b.so": "c"})
    [first] = packager.package(store).included.items()
    lay(repository, {"build/b.so": "d"})
    [second] = packager.package(store).included.items()
    assert first[0] == second[0] == "(2 files)"
    assert first[1] != second[1]


def test_patterns_that_match_nothing_are_refused(repository, store):
    lay(repository, {"build/a.so": "built"})
    with pytest.raises(
        PackagingError, match=r"include=\['bulid/\*\.so'\] matches no file of .*/code that git does not"
    ):
        GitArchivePackager(path=str(repository), include=["bulid/*.so"], untracked="ignore").package(store)


def test_a_file_with_the_marks_of_a_conflict_is_not_shipped(repository, store, contents):
    commit_files(repository, {"train.py": "ours\n"})
    run_git(repository, "checkout", "-q", "-b", "theirs", "HEAD~1")
    commit_files(repository, {"train.py": "theirs\n"})
    with pytest.raises(AssertionError):
        run_git(repository, "merge", "main")
    with pytest.raises(
        UncommittedChangesError, match=r"/code has unmerged files, .*: train\.py; resolve them, then 'git"
    ):
        GitArchivePackager(path=str(repository), uncommitted="include").package(store)
    packager = GitArchivePackager(path=str(repository), uncommitted="ignore")
    assert contents(packager.package(store))["train.py"] == b"theirs\n"


@pytest.mark.parametrize("name", ["plain.txt", os.fsdecode(b"caf\xe9.txt")])
def test_the_patch_of_a_file_that_is_not_utf_8_applies(repository, store, tmp_path, name):
    commit_files(repository, {name: b"caf\xe9 one\r\n"})
    lay(repository, {name: b"caf\xe9 two\r\n"})
    package = GitArchivePackager(path=str(repository), uncommitted="include").package(store)
    package = Package.from_json(json.loads(json.dumps(package.to_json())))
    run_git(tmp_path, "clone", "-q", str(repository), "clone")
    (tmp_path / "p.diff").write_bytes(package.patch.encode("utf-8", "surrogateescape"))
    run_git(tmp_path / "clone", "apply", str(tmp_path / "p.diff"))
    assert (tmp_path / "clone" / name).read_bytes() == b"caf\xe9 two\r\n"


def test_repository_within_the_repository_is_refused_with_advice(repository, store):
    commit_files(repository / "inner", {"a.py": "a"})
    with pytest.raises(PackagingError, match=r"inner/ in .* is a repository of its own"):
        GitArchivePackager(path=str(repository), untracked="include").package(store)


def test_names_of_any_bytes_and_any_length_and_modes_come_through(repository, store, unpacked, tmp_path):
    odd = {
        os.fsdecode(b"latin-\xe9.txt"): "l",
        "line\nend": "n",
        '"quoted"': "q",
        " space ": "s",
        "ünï/" + "d" * 120 + "/" + "n" * 200: "long",
        "run.sh": (b"#!/bin/sh\n", 0o755),
    }
    commit_files(repository, odd)
    package = GitArchivePackager(path=str(repository)).package(store)
    assert unpacked(package) == archived(repository, tmp_path)
    lay(repository, {os.fsdecode(b"new-\xff\nline"): "new", '"new"': "q", os.fsdecode(b"latin-\xe9.txt"): "changed"})
    shipped = unpacked(
        GitArchivePackager(path=str(repository), uncommitted="include", untracked="include").package(store)
    )
    assert shipped[os.fsdecode(b"new-\xff\nline")] == (b"new", False)
    assert shipped[os.fsdecode(b"latin-\xe9.txt")] == (b"changed", False)


def test_mode_alone_and_kind_of_file_are_changes(repository, store, unpacked):
    packager = GitArchivePackager(path=str(repository), uncommitted="include", untracked="include")
    before = packager.package(store)
    (repository / "train.py").chmod(0o755)
    after = packager.package(store)
    assert after.digest != before.digest
    assert unpacked(after)["train.py"] == (b"print(1)\n", True)
    (repository / "train.py").unlink()
    (repository / "train.py").symlink_to("pkg/net.py")
    assert unpacked(packager.package(store))["train.py"] == "-> pkg/net.py"
    shutil.rmtree(repository / "pkg")
    lay(repository, {"pkg": "a file now"})
    (repository / "train.py").unlink()
    lay(repository, {"train.py/inside.py": "a folder now"})
    assert unpacked(packager.package(store)) == {
        "pkg": (b"a file now", False),
        "train.py/inside.py": (b"a folder now", False),
    }


def test_a_rename_of_case_alone_is_followed(repository, store, unpacked):
    packager = GitArchivePackager(path=str(repository))
    before = packager.package(store)
    run_git(repository, "mv", "train.py", "Train.py")
    run_git(repository, "commit", "-q", "-m", "case")
    after = packager.package(store)
    assert after.digest != before.digest
    assert set(unpacked(after)) == {"Train.py", "pkg/net.py"}


def test_a_shallow_clone_has_the_same_digest(repository, store, tmp_path):
    commit_files(repository, {"second.py": "2"})
    run_git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", "shallow")
    digests = {GitArchivePackager(path=str(tmp_path / name)).package(store).digest for name in ("code", "shallow")}
    assert len(digests) == 1


def test_a_repository_of_sha256_names_is_shipped(tmp_path, store, contents):
    folder = tmp_path / "wide"
    folder.mkdir()
    run_git(folder, "init", "-q", "--object-format=sha256")
    commit_files(folder, {"a.py": "a", ".gitattributes": "b.py export-ignore\n", "b.py": "b"})
    (folder / "c.py").write_text("c")
    package = GitArchivePackager(path=str(folder), untracked="include").package(store)
    assert contents(package) == {"a.py": b"a", ".gitattributes": b"b.py export-ignore\n", "c.py": b"c"}


def test_what_was_staged_in_part_is_judged_as_git_does(repository, store, contents):
    lay(repository, {"new.py": "new"})
    run_git(repository, "add", "new.py")
    run_git(repository, "rm", "-q", "--cached", "pkg/net.py")
    packager = GitArchivePackager(path=str(repository), uncommitted="include", untracked="ignore")
    assert set(contents(packager.package(store))) == {"train.py", "new.py"}
    packager = GitArchivePackager(path=str(repository), uncommitted="include", untracked="include")
    assert set(contents(packager.package(store))) == {"train.py", "new.py", "pkg/net.py"}


def test_a_repository_made_anew_at_the_same_place_is_not_taken_for_the_old(repository, store, contents):
    packager = GitArchivePackager(path=str(repository))
    packager.package(store)
    shutil.rmtree(repository)
    commit_files(repository, {"other.py": "o"})
    assert set(contents(packager.package(store))) == {"other.py"}
    commit_files(repository / "pkg", {"inner.py": "i"})
    inner = GitArchivePackager(path=str(repository / "pkg"))
    assert set(contents(inner.package(store))) == {"inner.py"}
    shutil.rmtree(repository / "pkg" / ".git")
    run_git(repository, "add", "-A")
    run_git(repository, "commit", "-q", "-m", "taken in")
    assert set(contents(inner.package(store))) == {"other.py", "pkg/inner.py"}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"lfs": "maybe"}, "lfs='maybe' is not one of 'resolve'"), ({"include": "*.so"}, "give a list of patterns")],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(PackagingError, match=message):
        GitArchivePackager(**options)


def test_too_much_is_refused(repository, store):
    with pytest.raises(
        PackagingError, match=r"the package has 15 bytes in 2 files, more than max_size=9 bytes; .*train"
    ):
        GitArchivePackager(path=str(repository), max_size=9).package(store)


def test_paths_of_store_and_repository_may_be_relative(repository, contents, monkeypatch):
    monkeypatch.chdir(repository.parent)
    store = PackageStore(Path("store"))
    assert "train.py" in contents(GitArchivePackager(path="code").package(store), store=store)


def test_an_index_in_two_files_and_files_that_git_was_told_not_to_look_at(repository, store, contents):
    run_git(repository, "update-index", "--split-index")
    packager = GitArchivePackager(path=str(repository), uncommitted="include", untracked="include")
    first = packager.package(store)
    before = {path: path.lstat().st_mtime_ns for path in repository.rglob("*") if path.is_file()}
    assert packager.package(store) == first
    assert {path: path.lstat().st_mtime_ns for path in repository.rglob("*") if path.is_file()} == before
    (repository / "train.py").write_text("changed")
    assert contents(packager.package(store))["train.py"] == b"changed"
    run_git(repository, "update-index", "--assume-unchanged", "train.py")
    assert packager.package(store).digest == first.digest  # as for git itself
    run_git(repository, "update-index", "--no-assume-unchanged", "train.py")
    run_git(repository, "sparse-checkout", "set", "--no-cone", "/pkg/")
    sparse = GitArchivePackager(path=str(repository), uncommitted="ignore").package(store)
    assert sparse.digest == first.digest
