"""``exclude``: what git tracks and a job must not get, links to elsewhere above all; and it is on record."""

import dataclasses
import json

import pytest
from packaging_cases import commit_files, lay, run_git

from nemo_airflow import GitArchivePackager, HybridPackager, PatternPackager
from nemo_airflow.exceptions import PackagingError, UncommittedChangesError
from nemo_airflow.job import Job, Package, without_patch
from nemo_airflow.packaging import PackageStore
from nemo_airflow.packaging.explanation import OWN, explain_package
from nemo_airflow.tracking.mlflow.fields import tags_of_job


@pytest.fixture
def repository(tmp_path):
    commit_files(
        tmp_path / "code",
        {
            "train.py": "print(1)\n",
            "data": "-> /mnt/datasets/all",
            "bin/python": "-> /usr/bin/python3",
            "notebooks/a.ipynb": "{}",
            "notebooks/keep.py": "kept",
            "pkg/notebooks/b.ipynb": "{}",
        },
    )
    return tmp_path / "code"


def packager(repository, **options):
    return GitArchivePackager(path=str(repository), **options)


ALL = ["/data", "bin/", "*.ipynb"]


def test_links_to_elsewhere_and_folders_that_must_not_travel_are_left_out(repository, store, contents):
    with pytest.raises(PackagingError, match=r"outside the package.*leave the link out, as by exclude=\[\.\.\.\]"):
        packager(repository).package(store)
    package = packager(repository, exclude=ALL).package(store)
    assert contents(package) == {"train.py": b"print(1)\n", "notebooks/keep.py": b"kept"}
    assert packager(repository, exclude=ALL).package(store) == package
    below = packager(repository, subpath="notebooks", exclude=["*.ipynb"]).package(store)
    assert contents(below) == {"keep.py": b"kept"}
    first_taken_back = packager(repository, exclude=["/data", "bin/", "*.ipynb", "!b.ipynb"]).package(store)
    assert set(contents(first_taken_back)) == {"train.py", "notebooks/keep.py", "pkg/notebooks/b.ipynb"}


@pytest.mark.parametrize("home", ["home", "a [b]/home*"])
def test_our_own_home_in_a_folder_of_code_is_no_code(tmp_path, monkeypatch, contents, home):
    folder = tmp_path / "code"
    commit_files(folder, {"train.py": "print(1)\n"})
    lay(folder, {f"{home}/jobs/job-1/log.txt": "a line", f"{home}x/data.txt": "1", "draft.py": "print(2)\n"})
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(folder / home))
    store = PackageStore(folder / home / "packages")
    files = {"train.py", "draft.py", f"{home}x/data.txt"}
    by_pattern = PatternPackager(path=str(folder), include=["*.py", "*.txt"])
    for made in (packager(folder, untracked="include"), by_pattern):
        assert set(contents(made.package(store), store=store)) == files
        left_out = explain_package(made, store, folder).left_out
        assert [each.why for each in left_out if each.path == f"{home}/"] == [OWN]
    run_git(folder, "add", *files)
    run_git(folder, "commit", "-q", "-m", "all")
    assert not packager(folder).package(store).dirty  # though untracked files are refused


def test_the_package_is_that_of_a_commit_without_these_files(repository, store):
    package = packager(repository, exclude=ALL).package(store)
    run_git(repository, "rm", "-rq", "data", "bin", "*.ipynb")
    commit_files(repository)
    assert packager(repository).package(store).digest == package.digest


def test_what_was_excluded_is_on_record(repository, store):
    package = packager(repository, exclude=ALL).package(store)
    assert package.excluded == tuple(ALL)
    assert Package.from_json(json.loads(json.dumps(package.to_json()))) == package
    assert without_patch(package.to_json())["excluded"] == ALL
    assert "excluded" not in without_patch(dataclasses.replace(package, excluded=()).to_json())
    plan = {"version": 1, "root": {"_target_": "pkg:train"}}
    assert json.loads(tags_of_job(Job(key="k", name="n", plan=plan, package=package))["nemo_airflow.excluded"]) == ALL
    hybrid = HybridPackager(sub_packagers={"lib": packager(repository, exclude=ALL)}).package(store)
    assert hybrid.excluded == ("lib: /data", "lib: bin/", "lib: *.ipynb")


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        (
            ["/data", "bni/"],
            r"exclude=\['bni/'\] matches no file of .*code at HEAD: correct the patterns",
        ),
        (["/data", "bin/", "/train"], r"exclude=\['/train'\] matches no file"),
        ("*.ipynb", r"exclude='\*\.ipynb' is a text: give a list of patterns"),
        ([3], r"exclude=\[3\]: "),
        (["*"], "there are no files to package"),
    ],
)
def test_patterns_that_match_nothing_or_all_are_refused(repository, store, exclude, message):
    with pytest.raises(PackagingError, match=message):
        packager(repository, exclude=exclude).package(store)


def test_changes_of_excluded_files_do_not_matter(repository, store, contents):
    exclude = [*ALL, "notes/"]
    lay(repository, {"notebooks/a.ipynb": "changed", "notes/today.txt": "untracked"})
    clean = packager(repository, exclude=exclude).package(store)
    assert not clean.dirty
    included = packager(repository, exclude=exclude, uncommitted="include", untracked="include").package(store)
    assert (included.digest, included.patch) == (clean.digest, "")
    lay(repository, {"train.py": "print(2)\n"})
    with pytest.raises(UncommittedChangesError, match=r"uncommitted files: train\.py; commit"):
        packager(repository, exclude=exclude).package(store)
    changed = packager(repository, exclude=exclude, uncommitted="include", untracked="include").package(store)
    assert "a.ipynb" not in changed.patch
    assert contents(changed) == {"train.py": b"print(2)\n", "notebooks/keep.py": b"kept"}


def test_exclude_wins_over_include(repository, store, contents):
    lay(repository, {".gitignore": "build/\n", "build/a.so": "a", "build/b.so": "b"})
    commit_files(repository)
    package = packager(repository, include=["build/*.so"], exclude=[*ALL, "b.so", ".gitignore"]).package(store)
    assert set(contents(package)) == {"train.py", "notebooks/keep.py", "build/a.so"}
    assert set(package.included) == {"build/a.so"}
    with pytest.raises(PackagingError, match=r"include=\['bulid/\*'\] matches no file"):
        packager(repository, include=["build/*.so", "bulid/*"], exclude=ALL).package(store)


def test_a_submodule_that_is_excluded_need_not_be_checked_out(tmp_path, repository, store, contents):
    commit_files(tmp_path / "library", {"code.py": "library", "big.bin": "b"})
    for name in ("one", "two"):
        run_git(repository, "submodule", "add", "-q", str(tmp_path / "library"), f"vendor/{name}")
    run_git(repository, "commit", "-q", "-m", "library")
    exclude = [*ALL, "vendor/two/", "vendor/one/*.bin", ".gitmodules"]
    expected = {"train.py", "notebooks/keep.py", "vendor/one/code.py"}
    assert set(contents(packager(repository, exclude=exclude).package(store))) == expected
    run_git(repository, "submodule", "deinit", "-q", "-f", "vendor/two")
    store = type(store)(tmp_path / "other")
    assert set(contents(packager(repository, exclude=exclude).package(store), store=store)) == expected
