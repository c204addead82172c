"""A repository is packaged wherever it lies and whatever a user has set for git."""

import os
import shutil
import tarfile

import pytest
from packaging_cases import commit_files, lay, run_git, tree

from nemo_airflow import GitArchivePackager
from nemo_airflow.exceptions import PackagingError, UncommittedChangesError
from nemo_airflow.packaging import PackageStore
from nemo_airflow.packaging.git.repository import Repository


@pytest.mark.parametrize(
    "name", ["co:lon", 'quo"te', "back\\slash", "line\nend", os.fsdecode(b"latin-\xe9"), "#hash", "a space"]
)
@pytest.mark.parametrize("bare", [False, True])
def test_a_repository_at_a_path_of_any_bytes_is_packaged(tmp_path, store, contents, name, bare):
    folder = tmp_path / name
    commit_files(folder / "code", {"a.py": "a", ".gitattributes": "b.py export-ignore\n", "b.py": "b", "c.bin": "c"})
    run_git(folder, "clone", "-q", "--bare", "code", "bare.git")
    lay(folder / "code", {"new.py": "n"})
    packager = GitArchivePackager(path=str(folder / ("bare.git" if bare else "code")), untracked="include")
    for _ in range(2):  # the second time by what was noted
        shipped = contents(packager.package(store))
        assert shipped.keys() - {"new.py"} == {"a.py", ".gitattributes", "c.bin"}
        assert ("new.py" in shipped) is not bare


def test_new_objects_are_found_where_the_temporary_folder_has_a_colon(tmp_path, store, contents, monkeypatch):
    commit_files(tmp_path / "code", {".gitattributes": "b.py export-ignore\n", "b.py": "b"})
    (tmp_path / "tem:porary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tem:porary"))
    lay(tmp_path / "code", {".gitattributes": "c.py export-ignore\n"})
    packager = GitArchivePackager(path=str(tmp_path / "code"), uncommitted="include")
    assert contents(packager.package(store)) == {".gitattributes": b"c.py export-ignore\n", "b.py": b"b"}


def test_what_is_refused_of_a_repository_at_such_a_path_is_text(tmp_path, store):
    folder = tmp_path / os.fsdecode(b"latin-\xe9")
    commit_files(folder, {"a.py": "a"})
    lay(folder, {"a.py": "b"})
    with pytest.raises(UncommittedChangesError) as caught:
        GitArchivePackager(path=str(folder)).package(store)
    assert r"latin-\xe9" in str(caught.value).encode().decode()


@pytest.mark.parametrize("inside", [".git/objects", ".git"])
def test_objects_may_be_elsewhere_by_a_link(tmp_path, store, contents, inside):
    commit_files(tmp_path / "code", {"a.py": "a"})
    shutil.move(tmp_path / "code" / inside, tmp_path / "elsewhere")
    (tmp_path / "code" / inside).symlink_to(tmp_path / "elsewhere")
    lay(tmp_path / "code", {"new.py": "n"})
    packager = GitArchivePackager(path=str(tmp_path / "code"), untracked="include")
    for _ in range(2):
        assert contents(packager.package(store)) == {"a.py": b"a", "new.py": b"n"}


def test_formats_are_filled_in_as_git_archive_does_whatever_a_user_has_set(tmp_path, store, contents, monkeypatch):
    text = (
        "commit $Format:%H$ $Format:%h$ by $Format:%an <%ae>$ on $Format:%ad$, $Format:%cd$ $Format:%cI$\n"
        "$Format:%D$ $Format:%s%n%b$ $Format:%x41$ $Format:$ $Format:over\nlines %an$ $Format:not closed\n"
    )
    commit_files(tmp_path / "code", {".gitattributes": "v.txt export-subst\n", "v.txt": text}, "ünï\n\nbody\nmore\n")
    run_git(tmp_path / "code", "archive", "--format=tar", "-o", str(tmp_path / "raw.tar"), "HEAD")
    with tarfile.open(tmp_path / "raw.tar") as tar:
        tar.extractall(tmp_path / "raw", filter="fully_trusted")
    package = GitArchivePackager(path=str(tmp_path / "code")).package(store)
    assert contents(package)["v.txt"] == tree(tmp_path / "raw")["v.txt"][0]

    lay(tmp_path / "home", {"map": "Another <x@example.invalid> <a@example.invalid>\n"})
    run_git(tmp_path, "init", "-q", "settings")
    for setting, value in {
        "log.date": "iso", "log.showSignature": "true", "log.mailmap": "true", "mailmap.file": f"{tmp_path}/home/map",
        "log.decorate": "full", "core.abbrev": "20", "i18n.logOutputEncoding": "latin1", "color.ui": "always",
        "format.pretty": "oneline", "log.excludeDecoration": "*", "log.follow": "true",
    }.items():  # fmt: skip
        run_git(tmp_path, "config", "--file", str(tmp_path / "home" / ".gitconfig"), setting, value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    again = GitArchivePackager(path=str(tmp_path / "code")).package(PackageStore(tmp_path / "other"))
    assert again.digest == package.digest


def test_settings_of_git_given_by_variables_count(tmp_path, store, monkeypatch):
    """As in a container, where ``safe.directory`` is given so."""
    commit_files(tmp_path / "code", {"a.py": "a"})
    lay(tmp_path, {"code/notes.txt": "n", "ignored": "notes.txt\n"})
    packager = GitArchivePackager(path=str(tmp_path / "code"))
    with pytest.raises(UncommittedChangesError):
        packager.package(store)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.excludesFile")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(tmp_path / "ignored"))
    assert not packager.package(store).dirty


def test_variables_of_a_hook_that_runs_this_process_do_not_count(tmp_path, store, contents, monkeypatch):
    commit_files(tmp_path / "code", {"a.py": "a"})
    commit_files(tmp_path / "other", {"b.py": "b"})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other" / ".git" / "index"))
    assert contents(GitArchivePackager(path=str(tmp_path / "code")).package(store)) == {"a.py": b"a"}


def test_a_failure_of_git_names_its_command_and_the_repository(tmp_path):
    commit_files(tmp_path / "code", {"a.py": "a"})
    repository = Repository.at(tmp_path / "code")
    with pytest.raises(PackagingError, match=rf"^git hash-object in {tmp_path}/code: fatal: "):
        repository.git("-c", "core.autocrlf=false", "-c", "core.abbrev=7", "hash-object", "nothing-there")
