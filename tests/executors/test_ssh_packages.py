"""What of a package goes over the connection to a host: what is not there yet."""

import uuid

from nemo_airflow import PatternPackager, blocking, settings
from nemo_airflow.executors.host import folders
from nemo_airflow.executors.ssh import SSHExecutor
from nemo_airflow.follow import Follower
from nemo_airflow.job import Job
from nemo_airflow.packaging import PackageStore


def test_only_what_the_host_lacks_is_sent(ssh_conn_id, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    executor = SSHExecutor(ssh_conn_id=ssh_conn_id, root=f"~/packages-{uuid.uuid4().hex[:8]}")
    driver = executor.connect()
    sent = []
    take = folders.take_archive

    def counting(root, archive, size):
        sent.append((archive.name, size))
        return take(root, archive, size)

    monkeypatch.setattr(folders, "take_archive", counting)
    code = tmp_path / "code"
    code.mkdir()
    (code / "padding.txt").write_text("padding " * 50_000)

    def run(text):
        (code / "train.py").write_text(f"def run():\n    return {text!r}\n")
        package = PatternPackager(path=str(code)).package(PackageStore(settings.packages_folder()))
        plan = {"version": 1, "root": {"_target_": "train:run"}}
        job = Job(key=f"ssh-{uuid.uuid4().hex[:16]}", name="run", plan=plan, allow=("train.",), package=package)
        handle = blocking.run(driver.submit(executor.render(job)))
        assert blocking.run(Follower(executor, handle, on_line=print, warn=print).run(), 300).result == text
        return package

    first = run("one")
    assert sent == [("package.tar.gz", first.size)]
    run("one")
    assert len(sent) == 1
    changed = run("two")
    assert changed.base == first.digest
    assert sent[1:] == [("package.tar.gz", changed.size - first.size)]
    assert sent[1][1] < 500
    answer = blocking.run(driver.shell.run(f"rm -rf {executor.root.removeprefix('~/')}"))
    assert answer.code == 0
    blocking.run(driver.close())
