"""Bytecode that Python itself wrote is no reason to refuse a repository, and no part of a package."""

import os
import subprocess
import sys

import pytest
from packaging_cases import commit_files, lay, run_git

from nemo_airflow import GitArchivePackager, PatternPackager
from nemo_airflow.comparison.code_changes import CodeState, code_changes
from nemo_airflow.exceptions import UncommittedChangesError


@pytest.fixture
def repository(tmp_path):
    """Has no ``.gitignore``."""
    commit_files(
        tmp_path / "code", {"dags/trainer.py": "x = 1\n", "dags/pkg/__init__.py": "", "dags/dag.py": "y = 2\n"}
    )
    return tmp_path / "code"


def run_python(folder, statement):
    """Runs Python as it comes, which keeps the bytecode of what it imports."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", statement], cwd=folder, env=env, check=True)


def test_a_clean_repository_stays_clean_when_python_has_imported_from_it(repository, store, contents):
    before = GitArchivePackager(path=str(repository)).package(store)
    run_python(repository / "dags", "import trainer, pkg")
    assert list(repository.rglob("*.pyc"))
    for choice in ("refuse", "include"):
        package = GitArchivePackager(path=str(repository), uncommitted=choice, untracked=choice).package(store)
        assert (package.digest, package.dirty, package.patch) == (before.digest, False, "")
    assert PatternPackager(path=str(repository)).package(store).digest == before.digest
    assert set(contents(before)) == {"dags/trainer.py", "dags/pkg/__init__.py", "dags/dag.py"}


def test_a_new_folder_with_bytecode_alone_is_no_change_and_one_with_a_module_is(repository, store, contents):
    lay(repository, {"new/module.py": "z = 3\n"})
    run_python(repository / "new", "import module")
    with pytest.raises(UncommittedChangesError, match=r"has untracked files: new/; "):
        GitArchivePackager(path=str(repository)).package(store)
    package = GitArchivePackager(path=str(repository), untracked="include").package(store)
    assert "new/module.py" in contents(package)
    assert not [name for name in contents(package) if "pyc" in name]
    assert "pyc" not in package.patch
    (repository / "new" / "module.py").unlink()
    assert not GitArchivePackager(path=str(repository)).package(store).dirty


def test_bytecode_within_a_submodule_is_no_change_of_it_and_a_new_file_is(repository, store, tmp_path):
    commit_files(tmp_path / "deep", {"deep.py": "d = 1\n"})
    commit_files(tmp_path / "library", {"library.py": "l = 1\n"})
    run_git(tmp_path / "library", "submodule", "add", "-q", str(tmp_path / "deep"), "deep")
    run_git(tmp_path / "library", "commit", "-q", "-m", "deep")
    run_git(repository, "submodule", "add", "-q", str(tmp_path / "library"), "library")
    run_git(repository, "submodule", "update", "-q", "--init", "--recursive")
    run_git(repository, "commit", "-q", "-m", "library")
    run_python(repository / "library", "import library")
    run_python(repository / "library" / "deep", "import deep")
    assert "library" in run_git(repository, "status", "--porcelain")
    for choice in ("refuse", "include"):
        assert not GitArchivePackager(path=str(repository), uncommitted=choice).package(store).dirty
    lay(repository, {"library/deep/new.py": "n"})
    with pytest.raises(UncommittedChangesError, match=r"has uncommitted files: library; "):
        GitArchivePackager(path=str(repository)).package(store)


def test_bytecode_that_was_committed_is_shipped_as_committed(repository, store):
    run_python(repository / "dags", "import trainer")
    commit_files(repository)
    before = GitArchivePackager(path=str(repository)).package(store)
    os.utime(repository / "dags" / "trainer.py", (1, 1))
    run_python(repository / "dags", "import trainer")
    assert "pyc" in run_git(repository, "status", "--porcelain")
    for choice in ("refuse", "include"):
        package = GitArchivePackager(path=str(repository), uncommitted=choice).package(store)
        assert (package.digest, package.dirty) == (before.digest, False)
    next(repository.rglob("*.pyc")).unlink()
    assert GitArchivePackager(path=str(repository)).package(store).digest == before.digest


def test_bytecode_that_is_asked_for_by_a_pattern_is_shipped(repository, store, contents):
    run_python(repository / "dags", "import trainer")
    package = GitArchivePackager(path=str(repository), include=["*.pyc"]).package(store)
    assert [name for name in contents(package) if name.endswith(".pyc")]


def test_a_comparison_with_the_working_tree_leaves_bytecode_out(repository):
    run_python(repository / "dags", "import trainer")
    lay(repository, {"dags/dag.py": "y = 3\n"})
    commit = run_git(repository, "rev-parse", "HEAD")
    assert [change.path for change in code_changes(repository, CodeState(commit), CodeState())] == ["dags/dag.py"]
