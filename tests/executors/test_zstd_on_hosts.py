"""Packages are ``tar.zst`` where earlier jobs of the same interpreter and set-up have found that they read it."""

import shutil
import uuid

import pytest

from nemo_airflow import PatternPackager, SlurmExecutor, SSHExecutor, blocking, settings
from nemo_airflow.executors.host import folders
from nemo_airflow.follow import Follower
from nemo_airflow.job import FailureKind, Job
from nemo_airflow.packaging import PackageStore

WITHOUT_ZSTD = {"python": "/usr/bin/python3", "setup_lines": "export PATH=/nowhere"}


class Host:
    """A folder on the lab's host, the code that is packaged for it, and what is sent there."""

    def __init__(self, conn_id, code, monkeypatch):
        self.root = f"~/zstd-{uuid.uuid4().hex[:8]}"
        self.conn_id = conn_id
        self.code = code
        self.sent = []
        self.driver = self.executor().connect()
        take = folders.take_archive

        def noting(root, archive, size):
            self.sent.append(archive.name)
            return take(root, archive, size)

        monkeypatch.setattr(folders, "take_archive", noting)

    def executor(self, kind=SSHExecutor, **fields):
        return kind(ssh_conn_id=self.conn_id, root=self.root, **fields)

    def reads_zstd(self, executor):
        return blocking.run(self.driver.reads_zstd(executor))

    def shell(self, command):
        answer = blocking.run(self.driver.shell.run(f"cd {self.root.removeprefix('~/')} && {command}"))
        assert answer.code == 0, answer
        return answer.text

    def marks(self):
        return {name.partition(".")[2] for name in self.shell("ls zstd").split()}

    def package(self, executor, text):
        self.code.mkdir(exist_ok=True)
        (self.code / "train.py").write_text(f"def run():\n    return {text!r}\n")
        store = PackageStore(settings.packages_folder())
        return PatternPackager(path=str(self.code)).package(store, reads_zstd=self.reads_zstd(executor))

    def run(self, executor, package):
        plan = {"version": 1, "root": {"_target_": "train:run"}}
        job = Job(key=f"z-{uuid.uuid4().hex[:16]}", name="run", plan=plan, allow=("train.",), package=package)
        driver = executor.connect()
        handle = blocking.run(driver.submit(executor.render(job)))
        outcome = blocking.run(Follower(executor, handle, on_line=print, warn=print).run(), 300)
        blocking.run(driver.close())
        return outcome


@pytest.fixture
def host(ssh_conn_id, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    host = Host(ssh_conn_id, tmp_path / "code", monkeypatch)
    yield host
    blocking.run(host.driver.shell.run(f"rm -rf {host.root.removeprefix('~/')}"))
    blocking.run(host.driver.close())


@pytest.mark.usefixtures("lab_slurm")
@pytest.mark.parametrize("kind", [SSHExecutor, SlurmExecutor])
def test_the_first_job_leaves_the_mark_and_the_next_new_package_is_zstd(host, kind):
    executor = host.executor(kind)
    assert not host.reads_zstd(executor)
    first = host.package(executor, "one")
    assert host.run(executor, first).result == "one"
    assert host.marks() == {"yes"}
    second = host.package(executor, "two")
    assert host.run(executor, second).result == "two"
    assert (first.format, second.format) == ("tar.gz", "tar.zst")
    assert host.sent == ["package.tar.gz", "package.tar.zst"]


def test_what_was_packed_before_is_neither_packed_nor_sent_again(host):
    executor = host.executor()
    first = host.package(executor, "one")
    host.run(executor, first)
    again = host.package(executor, "one")
    assert again == first
    host.run(executor, again)
    assert host.sent == ["package.tar.gz"]


def test_what_the_host_has_from_another_machine_is_not_sent_again(host, tmp_path):
    executor = host.executor()
    first = host.package(executor, "one")
    host.run(executor, first)
    shutil.rmtree(settings.packages_folder())
    elsewhere = host.package(executor, "one")
    assert (elsewhere.format, elsewhere.digest) == ("tar.zst", first.digest)
    assert host.run(executor, elsewhere).result == "one"
    assert host.sent == ["package.tar.gz"]


def test_changes_to_a_package_that_is_there_are_packed_as_it_was(host):
    host.code.mkdir()
    (host.code / "padding.txt").write_text("padding " * 50_000)
    executor = host.executor()
    first = host.package(executor, "one")
    host.run(executor, first)
    changed = host.package(executor, "two")
    assert (changed.base, changed.format) == (first.digest, "tar.gz")
    assert host.run(executor, changed).result == "two"
    assert host.sent == ["package.tar.gz", "package.tar.gz"]


def test_an_interpreter_without_zstd_says_no(host):
    executor = host.executor(**WITHOUT_ZSTD)
    assert host.run(executor, host.package(executor, "one")).result == "one"
    assert host.marks() == {"no"}
    assert host.package(executor, "two").format == "tar.gz"
    assert not host.reads_zstd(host.executor())


def test_no_counts_more_than_yes(host):
    executor = host.executor()
    host.run(executor, host.package(executor, "one"))
    assert host.reads_zstd(executor)
    host.shell(f"touch zstd/{executor.zstd_mark}.no")
    assert not host.reads_zstd(executor)
    host.run(executor, host.package(executor, "two"))
    assert host.marks() == {"yes", "no"}
    assert not host.reads_zstd(executor)


def test_a_job_that_cannot_unpack_zstd_says_no_and_what_to_do(host):
    executor = host.executor(**WITHOUT_ZSTD)
    host.run(executor, host.package(executor, "one"))
    host.shell("cd zstd && for mark in *.no; do mv $mark ${mark%.no}.yes; done")
    package = host.package(executor, "two")
    assert package.format == "tar.zst"
    outcome = host.run(executor, package)
    assert outcome.status.failure is FailureKind.PACKAGE
    assert "install the package zstandard or the program zstd" in outcome.message
    assert host.marks() == {"yes", "no"}
    assert host.package(executor, "three").format == "tar.gz"


def test_a_mark_that_cannot_be_left_hurts_no_job(host):
    executor = host.executor()
    blocking.run(host.driver.shell.run(f"mkdir {host.root.removeprefix('~/')}"))
    host.shell("touch zstd")  # a file where the folder of the marks would be
    assert host.run(executor, host.package(executor, "one")).result == "one"
    assert not host.reads_zstd(executor)


def test_the_mark_is_that_of_the_interpreter_the_set_up_and_the_nodes():
    executors = [
        SSHExecutor(), SSHExecutor(python="/opt/python"), SSHExecutor(setup_lines="module load python"),
        SlurmExecutor(partition="a"), SlurmExecutor(partition="b"), SlurmExecutor(constraint="a"),
    ]  # fmt: skip
    assert len({executor.zstd_mark for executor in executors}) == len(executors)
    assert SSHExecutor(ssh_conn_id="other", env={"A": "1"}).zstd_mark == SSHExecutor().zstd_mark
    job = Job(key="k", name="run", plan={"version": 1, "root": {}})
    for executor in executors:
        assert f"ZSTD_MARK=../../zstd/{executor.zstd_mark}\n" in executor.render(job).files[folders.START]
