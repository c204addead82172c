"""The git packager, on real repositories."""

import logging
import multiprocessing
import os
import subprocess
import tarfile

import pytest

from nemo_airflow import GitArchivePackager, HybridPackager
from nemo_airflow.exceptions import NotARepositoryError, PackagingError, UncommittedChangesError
from nemo_airflow.packaging import PackageStore

IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.invalid",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.invalid",
}


def git(folder, *arguments, **env):
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", "-C", str(folder), *arguments],
        env={**os.environ, **IDENTITY, **env}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "work")


@pytest.fixture
def store(tmp_path):
    return PackageStore(tmp_path / "store")


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    commit(folder, train_dot_py="print(1)\n", pkg__net_dot_py="x = 1\n", pkg__sub__deep_dot_py="y = 2\n")
    return folder


def content(store, package):
    with tarfile.open(store.path(package.digest)) as tar:
        return {m.name: tar.extractfile(m).read() if m.isfile() else m.linkname for m in tar if not m.isdir()}


def archives(store):
    return sorted(path.name for path in store.folder.rglob("*.tar.*"))


def snapshot(folder):
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def test_clean_repository_is_shipped_as_committed(repository, store):
    package = GitArchivePackager(path=str(repository)).package(store)
    assert content(store, package) == {
        "train.py": b"print(1)\n",
        "pkg/net.py": b"x = 1\n",
        "pkg/sub/deep.py": b"y = 2\n",
    }
    assert package.commit == git(repository, "rev-parse", "HEAD")
    assert (package.dirty, package.patch, package.origin) == (False, "", "")
    assert package.size == store.path(package.digest).stat().st_size


def test_same_content_has_the_same_digest_and_bytes_anywhere(repository, tmp_path):
    clone = tmp_path / "elsewhere" / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    for path in clone.rglob("*"):
        if ".git" not in path.parts:
            os.utime(path, (1, 1))
    git(
        clone,
        "commit",
        "-q",
        "--amend",
        "-m",
        "another commit of the same tree",
        GIT_COMMITTER_DATE="@1000000000 +0000",
    )
    stores = PackageStore(tmp_path / "one"), PackageStore(tmp_path / "two")
    packages = [
        GitArchivePackager(path=str(folder)).package(store)
        for folder, store in zip((repository, clone), stores, strict=True)
    ]
    assert packages[0].digest == packages[1].digest
    assert packages[0].commit != packages[1].commit
    first, second = (store.path(packages[0].digest).read_bytes() for store in stores)
    assert first == second


def test_unchanged_content_is_not_packed_again(repository, store):
    packager = GitArchivePackager(path=str(repository))
    path = store.path(packager.package(store).digest)
    path.write_bytes(b"whoever packs again replaces this")
    packager.package(store)
    assert path.read_bytes() == b"whoever packs again replaces this"


@pytest.mark.parametrize("options", [{}, {"uncommitted": "include", "untracked": "include"}])
def test_nothing_is_written_into_the_repository(repository, store, options):
    if options:
        (repository / "train.py").write_text("print(2)\n")
        (repository / "new.py").write_text("new\n")
    before = snapshot(repository)
    GitArchivePackager(path=str(repository), **options).package(store)
    assert snapshot(repository) == before


def test_changes_are_refused_by_name_and_nothing_is_packed(repository, store):
    (repository / "train.py").write_text("print(2)\n")
    with pytest.raises(UncommittedChangesError, match=r"uncommitted files: train\.py.*'include'.*'ignore'"):
        GitArchivePackager(path=str(repository)).package(store)
    git(repository, "checkout", "-q", "train.py")
    for number in range(12):
        (repository / f"new{number:02}.py").touch()
    with pytest.raises(UncommittedChangesError, match=r"untracked files: new00\.py.*new09\.py and 2 more"):
        GitArchivePackager(path=str(repository)).package(store)
    assert archives(store) == []


def test_ignored_changes_stay_out_and_are_named_in_a_warning(repository, store, caplog):
    clean = GitArchivePackager(path=str(repository)).package(store)
    (repository / "train.py").write_text("print(2)\n")
    (repository / "new.py").touch()
    with caplog.at_level(logging.WARNING):
        package = GitArchivePackager(path=str(repository), uncommitted="ignore", untracked="ignore").package(store)
    assert package == clean
    assert "train.py" in caplog.text
    assert "new.py" in caplog.text


def test_included_changes_are_shipped_and_recorded_as_a_patch_that_applies(repository, store, tmp_path):
    (repository / ".gitignore").write_text("*.log\n")
    git(repository, "add", ".gitignore")
    git(repository, "commit", "-q", "-m", "ignore logs")
    (repository / "train.py").write_text("print(2)\n")
    (repository / "pkg" / "net.py").unlink()
    (repository / "new ünï.bin").write_bytes(bytes(range(256)))
    (repository / "noise.log").write_text("not wanted")
    package = GitArchivePackager(path=str(repository), uncommitted="include", untracked="include").package(store)
    shipped = content(store, package)
    assert set(shipped) == {"train.py", "pkg/sub/deep.py", "new ünï.bin", ".gitignore"}
    assert shipped["train.py"] == b"print(2)\n"
    assert package.dirty
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    git(clone, "checkout", "-q", package.commit)
    (clone / "p.diff").write_text(package.patch)
    git(clone, "apply", "--index", "p.diff")
    assert (
        GitArchivePackager(path=str(clone), uncommitted="include", untracked="ignore").package(store).digest
        == package.digest
    )


def test_untracked_alone_can_be_included(repository, store):
    (repository / "train.py").write_text("print(2)\n")
    (repository / "new.py").write_text("new\n")
    package = GitArchivePackager(path=str(repository), uncommitted="ignore", untracked="include").package(store)
    assert content(store, package)["train.py"] == b"print(1)\n"
    assert content(store, package)["new.py"] == b"new\n"


def test_subpath_becomes_the_root_and_changes_elsewhere_do_not_matter(repository, store):
    packager = GitArchivePackager(path=str(repository), subpath="pkg")
    package = packager.package(store)
    assert content(store, package) == {"net.py": b"x = 1\n", "sub/deep.py": b"y = 2\n"}
    (repository / "train.py").write_text("print(2)\n")
    assert packager.package(store).digest == package.digest


def test_another_ref_is_shipped_whatever_the_working_tree_has(repository, store):
    git(repository, "tag", "v1")
    commit(repository, train_dot_py="print(2)\n")
    (repository / "train.py").write_text("print(3)\n")
    package = GitArchivePackager(path=str(repository), ref="v1").package(store)
    assert content(store, package)["train.py"] == b"print(1)\n"


def test_modes_links_and_export_ignore(repository, store):
    (repository / "run.sh").write_text("#!/bin/sh\n")
    (repository / "run.sh").chmod(0o755)
    (repository / "link.py").symlink_to("pkg/net.py")
    commit(repository, _dot_gitattributes="secret export-ignore\n", secret__key="k")
    package = GitArchivePackager(path=str(repository)).package(store)
    with tarfile.open(store.path(package.digest)) as tar:
        assert tar.getmember("run.sh").mode & 0o111
        assert tar.getmember("link.py").linkname == "pkg/net.py"
        assert not [name for name in tar.getnames() if name.startswith("secret/")]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "pkg/../../outside"])
def test_link_out_of_the_package_is_refused(repository, store, target):
    (repository / "bad").symlink_to(target)
    git(repository, "add", "bad")
    git(repository, "commit", "-q", "-m", "bad")
    with pytest.raises(PackagingError, match=r"link bad points to"):
        GitArchivePackager(path=str(repository)).package(store)


def test_submodules_are_shipped_at_their_recorded_commits(repository, store, tmp_path):
    inner, library = tmp_path / "inner", tmp_path / "library"
    for folder in (inner, library):
        folder.mkdir()
        git(folder, "init", "-q")
        commit(folder, code_dot_py=folder.name)
    git(library, "submodule", "add", "-q", str(inner), "deep/inner")
    git(library, "commit", "-q", "-m", "inner")
    git(repository, "submodule", "add", "-q", str(library), "vendor/library")
    git(repository, "submodule", "update", "-q", "--init", "--recursive")
    git(repository, "commit", "-q", "-m", "library")
    commit(repository / "vendor" / "library", code_dot_py="newer than recorded")
    packager = GitArchivePackager(path=str(repository), uncommitted="ignore")
    shipped = content(store, packager.package(store))
    assert shipped["vendor/library/code.py"] == b"library"
    assert shipped["vendor/library/deep/inner/code.py"] == b"inner"
    assert shipped["train.py"] == b"print(1)\n"
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    with pytest.raises(PackagingError, match=r"submodule vendor/library is not checked out.*submodule update"):
        GitArchivePackager(path=str(clone)).package(store)


def test_bare_clone_and_worktree_and_detached_head(repository, store, tmp_path):
    digest = GitArchivePackager(path=str(repository)).package(store).digest
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
    git(repository, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    assert GitArchivePackager(path=str(tmp_path / "bare.git")).package(store).digest == digest
    assert GitArchivePackager(path=str(tmp_path / "tree")).package(store).digest == digest
    (tmp_path / "tree" / "train.py").write_text("print(4)\n")
    changed = GitArchivePackager(path=str(tmp_path / "tree"), uncommitted="include").package(store)
    assert content(store, changed)["train.py"] == b"print(4)\n"


def test_origin_is_recorded_without_credentials(repository, store):
    git(repository, "remote", "add", "origin", "https://user:secret@git.example.invalid/team/code.git")
    assert GitArchivePackager(path=str(repository)).package(store).origin == "https://git.example.invalid/team/code.git"


def test_large_patch_is_kept_in_the_store(repository, store):
    (repository / "data.bin").write_bytes(os.urandom(1 << 20))
    package = GitArchivePackager(path=str(repository), untracked="include").package(store)
    assert package.dirty
    assert package.patch == ""
    assert b"data.bin" in store.path(package.stored_patch, "patch").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": "{tmp}"}, NotARepositoryError, "is not in a git repository"),
        ({"path": "{tmp}/nowhere"}, NotARepositoryError, "is not a folder"),
        ({"path": "{tmp}/empty"}, NotARepositoryError, "no commit yet"),
        ({"ref": "v9"}, PackagingError, "ref='v9'"),
        ({"subpath": "nope"}, PackagingError, "subpath='nope'"),
        ({"subpath": "train.py"}, PackagingError, "subpath='train.py'"),
    ],
)
def test_bad_input_is_one_clear_line(repository, store, tmp_path, arguments, error, message):
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    arguments = {name: value.replace("{tmp}", str(tmp_path)) for name, value in arguments.items()}
    with pytest.raises(error, match=message) as caught:
        GitArchivePackager(**{"path": str(repository), **arguments}).package(store)
    assert "\n" not in str(caught.value)


def test_wrong_choice_is_named():
    with pytest.raises(PackagingError, match="uncommitted='maybe'"):
        GitArchivePackager(uncommitted="maybe")


def test_git_that_is_not_installed_is_said(repository, store, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PackagingError, match="git is not installed"):
        GitArchivePackager(path=str(repository)).package(store)


def pack(arguments):
    folder, store = arguments
    return GitArchivePackager(path=str(folder)).package(PackageStore(store)).digest


def test_many_processes_may_use_one_store(repository, store):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        digests = pool.map(pack, [(repository, store.folder)] * 8)
    assert len(set(digests)) == 1
    with tarfile.open(store.path(digests[0])) as tar:
        assert "train.py" in tar.getnames()
    assert archives(store) == [f"{digests[0]}.tar.gz"]


def test_broken_write_is_never_used(store):
    def break_off():
        with store.write("ab" * 32) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert not store.has("ab" * 32)
    assert not [path for path in store.folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        ("https://user:secret@host.invalid/team/code.git", "https://host.invalid/team/code.git"),
        ("https://secret@host.invalid/code?private_token=secret", "https://host.invalid/code"),
        ("https::https://user:secret@host.invalid/code", "https://host.invalid/code"),
        ("https://user:secret@[host.invalid/code", "https://[host.invalid/code"),
        ("ssh://git@host.invalid:2222/code.git", "ssh://git@host.invalid:2222/code.git"),
        ("ssh://git:secret@host.invalid/code.git", "ssh://host.invalid/code.git"),
        ("git@host.invalid:team/code.git", "git@host.invalid:team/code.git"),
        ("oauth2:secret@host.invalid:team/code.git", "host.invalid:team/code.git"),
        ("/srv/code@2:main", "/srv/code@2:main"),
        ("../code", "../code"),
    ],
)
def test_no_part_of_a_login_is_in_the_recorded_origin(repository, store, remote, shown):
    git(repository, "remote", "add", "origin", remote)
    assert GitArchivePackager(path=str(repository)).package(store).origin == shown


def test_the_branch_is_recorded_as_it_is_now(repository, store):
    packager = GitArchivePackager(path=str(repository))
    assert packager.package(store).branch == "main"
    git(repository, "switch", "-q", "-c", "feature/deep")
    assert packager.package(store).branch == "feature/deep"
    assert HybridPackager(sub_packagers={"a": packager}).package(store).branch == "feature/deep"
    git(repository, "tag", "v1")
    branches = {
        ref: GitArchivePackager(path=str(repository), ref=ref).package(store).branch
        for ref in ("main", "v1", git(repository, "rev-parse", "HEAD"))
    }
    assert list(branches.values()) == ["main", "", ""]


def test_a_detached_or_shallow_repository_without_a_remote_has_no_branch_or_origin(repository, store, tmp_path):
    git(tmp_path, "clone", "-q", "--depth", "1", repository.as_uri(), str(tmp_path / "shallow"))
    git(tmp_path / "shallow", "remote", "remove", "origin")
    git(tmp_path / "shallow", "switch", "-q", "--detach")
    package = GitArchivePackager(path=str(tmp_path / "shallow")).package(store)
    assert (package.branch, package.origin) == ("", "")
    assert package.commit == git(repository, "rev-parse", "HEAD")
