"""What this machine keeps in its home folder goes by age, but for what runs name."""

import fcntl
import os
import time

import pytest
from mlflow.tracking import MlflowClient
from packaging_cases import commit_files

from nemo_airflow import GitArchivePackager
from nemo_airflow.cli import main
from nemo_airflow.config.plan.versions import ConfigVersions
from nemo_airflow.job import Job
from nemo_airflow.packaging import PackageStore
from nemo_airflow.tracking import MLflowTracker

PLAN = {"version": 1, "root": {"_target_": "pkg:train", "lr": 0.1}}
OTHER = {"version": 1, "root": {"_target_": "pkg:train", "lr": 0.2}}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    for name in ("NEMO_AIRFLOW_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def repository(tmp_path):
    commit_files(tmp_path / "code", {"train.py": "print(1)\n", "data.bin": os.urandom(300 << 10)})
    return tmp_path / "code"


def make_old(folder):
    for file in folder.rglob("*"):
        if file.is_file():
            os.utime(file, (0, 0))


def files_below(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def package(home, repository, **options):
    packager = GitArchivePackager(path=str(repository), uncommitted="include", **options)
    return packager.package(PackageStore(home / "packages"))


def collect(*options):
    assert main(["store", "gc", "--older-than", "1", *options]) == 0


def test_nothing_is_left_of_what_nobody_wants(home, repository):
    package(home, repository)
    ConfigVersions().save(PLAN)
    (home / "bundles").mkdir()
    (home / "bundles" / "key.tar").write_bytes(b"x" * 100)
    (home / "configs" / "ab").mkdir()
    (home / "configs" / "ab" / ".unfinished").write_bytes(b"x")
    make_old(home)
    before = files_below(home)
    collect("--dry-run")
    assert files_below(home) == before
    collect()
    # The locks are empty, and at most 256: deleting one would break it for those who wait for it.
    assert all(name.startswith("packages/.locks/") for name in files_below(home))


def test_what_is_in_use_stays_with_all_that_is_remembered_of_it(home, repository):
    time.sleep(2.1)  # until the files are old enough that an unchanged repository is recognized
    first = package(home, repository)
    ConfigVersions().save(PLAN)
    before = files_below(home)
    make_old(home)
    assert package(home, repository) == first
    ConfigVersions().save(PLAN)
    collect()
    assert files_below(home) == before
    (repository / "train.py").write_text("print(2)\n")
    assert package(home, repository).base == first.digest


def test_what_runs_name_stays_at_any_age(home, repository):
    packed = package(home, repository)
    kept, unused = ConfigVersions().save(PLAN), ConfigVersions().save(OTHER)
    job = Job(key="k", name="n", plan=PLAN, package=packed)
    ref = MLflowTracker().open(job, experiment="e", parent="", shares_filesystem=False)
    make_old(home / "packages")
    make_old(home / "configs")
    collect()
    assert PackageStore(home / "packages").has(packed.digest, packed.format)
    assert ConfigVersions().list() == [kept]
    assert unused != kept
    collect("--no-keep-runs", "--dry-run")
    MlflowClient(ref.uri).delete_run(ref.run_id)
    make_old(home / "packages")
    collect()
    assert not PackageStore(home / "packages").has(packed.digest, packed.format)
    assert ConfigVersions().list() == []


def test_where_the_named_store_of_runs_is_missing_nothing_is_deleted(home, repository, tmp_path, capsys):
    packed = package(home, repository)
    make_old(home)
    where = f"sqlite:///{tmp_path / 'mistyped.db'}"
    assert main(["store", "gc", "--older-than", "1", "--tracking-uri", where]) == 2
    assert "mistyped.db does not exist: give the address of the store that has the runs" in capsys.readouterr().err
    assert PackageStore(home / "packages").has(packed.digest, packed.format)


def test_outputs_of_a_task_that_was_killed_while_it_fetched_them_go_and_those_of_a_living_one_stay(home, capsys):
    for name in ("killed", "fetching", "young"):
        (home / "outputs" / name / "outputs").mkdir(parents=True)
        (home / "outputs" / name / "outputs" / "model.bin").write_bytes(b"x" * 100)
    for name in ("killed", "fetching"):
        os.utime(home / "outputs" / name, (0, 0))
    held = os.open(home / "outputs" / "fetching", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    collect("--dry-run")
    assert "1 files of outputs that a killed task was fetching, 100 bytes would be freed" in capsys.readouterr().out
    collect()
    os.close(held)
    assert sorted(os.listdir(home / "outputs")) == ["fetching", "young"]
