"""``nemo-airflow collect``: what a task could not keep is fetched by hand."""

import json
import time
import uuid

import kubernetes
import pytest

from nemo_airflow import KubernetesExecutor, LocalExecutor, blocking
from nemo_airflow.cli import main
from nemo_airflow.follow import Follower
from nemo_airflow.job import Job

WRITES = 'mkdir "$NEMO_AIRFLOW_OUTPUT_DIR/sub"; echo good >"$NEMO_AIRFLOW_OUTPUT_DIR/sub/model.txt"'


def submit(executor, text):
    root = {"_target_": "nemo_airflow.runner.script:run", "inline": text}
    job = Job(key=f"c{uuid.uuid4().hex[:20]}", name="script", plan={"version": 1, "root": root})
    return blocking.run(executor.connect().submit(executor.render(job)))


def end(executor, handle):
    follower = Follower(executor, handle, on_line=lambda line: None, warn=lambda text: None)
    assert blocking.run(follower.run(), 60).succeeded


@pytest.fixture
def executor(tmp_path):
    return LocalExecutor(root=str(tmp_path / "jobs"), grace=1)


def test_outputs_are_fetched_into_a_new_folder(executor, tmp_path, monkeypatch, capsys):
    handle = submit(executor, WRITES)
    end(executor, handle)
    monkeypatch.chdir(tmp_path)
    assert main(["collect", json.dumps(executor.to_json()), handle.key]) == 0
    assert (tmp_path / f"outputs-{handle.key}/sub/model.txt").read_text() == "good\n"
    assert capsys.readouterr().out.splitlines() == ["sub/model.txt", f"1 file, 5 bytes, in outputs-{handle.key}"]
    assert main(["collect", json.dumps(executor.to_json()), handle.key]) == 2
    assert "is there already: name a new folder with --into" in capsys.readouterr().err


def test_output_that_cannot_be_kept_is_named_and_the_others_are_fetched(executor, tmp_path, capsys):
    handle = submit(executor, f'{WRITES}; ln -s /etc/passwd "$NEMO_AIRFLOW_OUTPUT_DIR/users"')
    end(executor, handle)
    into = tmp_path / "outputs"
    assert main(["collect", json.dumps(executor.to_json()), handle.key, "--into", str(into)]) == 1
    assert (into / "sub/model.txt").exists()
    assert "left out: users" in capsys.readouterr().err


def test_job_that_is_not_there_is_said(executor, capsys):
    assert main(["collect", json.dumps(executor.to_json()), "no-such-key"]) == 2
    error = capsys.readouterr().err
    assert "there is no job no-such-key" in error
    assert len(error.splitlines()) == 1


def test_pod_that_waits_for_its_outputs_gives_them_and_ends_when_they_are_released(
    lab_kubeconfig, lab_image, tmp_path, capsys
):
    executor = KubernetesExecutor(container_image=lab_image, config_file=lab_kubeconfig, grace=2, linger=600)
    handle = submit(executor, WRITES)
    end(executor, handle)
    into = tmp_path / "outputs"
    given = json.dumps(executor.to_json())
    assert main(["collect", given, handle.key, "--into", str(into), "--release"]) == 0
    assert (into / "sub/model.txt").read_text() == "good\n"
    with kubernetes.config.new_client_from_config(lab_kubeconfig) as client:
        api = kubernetes.client.CoreV1Api(client)
        deadline = time.monotonic() + 60
        while api.read_namespaced_pod(handle.key, "default").status.phase != "Succeeded":
            assert time.monotonic() < deadline, "the pod still waits"
            time.sleep(0.2)
