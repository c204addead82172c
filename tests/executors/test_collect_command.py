"""``nemo-airflow collect``: what a task could not keep is fetched by hand."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kubernetes
import kubernetes.stream
import pytest
import yaml
from job_cases import follow, script_job, start, status, submit, wait_for_end, wait_until

from nemo_airflow import DockerExecutor, KubernetesExecutor, LocalExecutor, SSHExecutor, blocking
from nemo_airflow.cli import collect, main
from nemo_airflow.exceptions import ExecutorError
from nemo_airflow.executors.bundle import runner_entry
from nemo_airflow.executors.kubernetes import manifest
from nemo_airflow.job import JobState

WRITES = 'mkdir "$NEMO_AIRFLOW_OUTPUT_DIR/sub"; echo good >"$NEMO_AIRFLOW_OUTPUT_DIR/sub/model.txt"'


def end(executor, handle):
    assert follow(executor, handle).outcome.succeeded


@pytest.fixture
def executor(tmp_path):
    return LocalExecutor(root=str(tmp_path / "jobs"), grace=1)


def test_outputs_are_fetched_into_a_new_folder(executor, tmp_path, monkeypatch, capsys):
    handle = submit(executor, script_job(WRITES))
    end(executor, handle)
    monkeypatch.chdir(tmp_path)
    assert main(["collect", json.dumps(executor.to_json()), handle.key]) == 0
    assert (tmp_path / f"outputs-{handle.key}/sub/model.txt").read_text() == "good\n"
    assert capsys.readouterr().out.splitlines() == ["sub/model.txt", f"1 file, 5 bytes, in outputs-{handle.key}"]
    assert main(["collect", json.dumps(executor.to_json()), handle.key]) == 2
    assert "is there already: name a new folder with --into" in capsys.readouterr().err


def test_output_that_cannot_be_kept_is_named_and_the_others_are_fetched(executor, tmp_path, capsys):
    handle = submit(executor, script_job(f'{WRITES}; ln -s /etc/passwd "$NEMO_AIRFLOW_OUTPUT_DIR/users"'))
    end(executor, handle)
    into = tmp_path / "outputs"
    assert main(["collect", json.dumps(executor.to_json()), handle.key, "--into", str(into)]) == 1
    assert (into / "sub/model.txt").exists()
    assert "left out: users" in capsys.readouterr().err


def test_job_that_is_not_there_is_said_in_one_line(executor, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["collect", yaml.safe_dump(executor.to_json()), "no-such-key"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the local executor's back-end has no job no-such-key" in line
    assert not list(tmp_path.iterdir())


def test_of_several_that_fetch_into_one_folder_one_does(executor, tmp_path, capsys):
    handle = submit(executor, script_job(f'{WRITES}; cd "$NEMO_AIRFLOW_OUTPUT_DIR"; touch $(seq 300)'))
    end(executor, handle)
    given = [json.dumps(executor.to_json()), handle.key, "--into", str(tmp_path / "outputs")]
    together = threading.Barrier(4)

    def fetch(_):
        together.wait(300)
        return main(["collect", *given])

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(fetch, range(4))) == [0, 2, 2, 2]
    assert len(list((tmp_path / "outputs").rglob("*"))) == 302
    assert not (tmp_path / "outputs" / collect.UNFINISHED).exists()


def test_folder_into_which_another_fetches_is_left_alone(executor, tmp_path, capsys):
    handle = submit(executor, script_job(WRITES))
    end(executor, handle)
    other = tmp_path / "outputs" / collect.UNFINISHED / "model.txt"
    other.parent.mkdir(parents=True)
    other.touch()
    assert main(["collect", json.dumps(executor.to_json()), handle.key, "--into", str(tmp_path / "outputs")]) == 2
    assert "that another 'nemo-airflow collect' fetches" in capsys.readouterr().err
    assert [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == [other]


def test_fetched_file_that_is_changed_leaves_the_jobs_own_as_it_is(executor, tmp_path):
    handle = submit(executor, script_job(WRITES))
    end(executor, handle)
    given = json.dumps(executor.to_json())
    for into in ("first", "second"):
        assert main(["collect", given, handle.key, "--into", str(tmp_path / into)]) == 0
        model = tmp_path / into / "sub/model.txt"
        assert model.read_text() == "good\n"
        with model.open("a") as file:
            file.write("changed\n")


def test_amount_that_has_come_is_said_meanwhile(executor, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(collect, "_SAY_EVERY", 0.001)
    handle = submit(executor, script_job('cd "$NEMO_AIRFLOW_OUTPUT_DIR"; for i in $(seq 2000); do echo 1 >$i; done'))
    end(executor, handle)
    assert main(["collect", json.dumps(executor.to_json()), handle.key, "--into", str(tmp_path / "outputs")]) == 0
    said = capsys.readouterr()
    assert "files, " in said.err
    assert all(line.endswith(" bytes so far") for line in said.err.splitlines())
    assert said.out.splitlines()[-1] == f"2,000 files, 4,000 bytes, in {tmp_path / 'outputs'}"


def check_that_outputs_go_with_their_job(executor, into):
    driver, handle = start(executor, script_job("true"))
    end(executor, handle)
    assert blocking.run(driver.collect(handle, into)) == []
    wait_for_end(driver, handle)
    blocking.run(driver.remove([handle]))
    with pytest.raises(ExecutorError, match=f"{handle.key} are gone"):
        blocking.run(driver.collect(handle, into))


def test_outputs_that_are_gone_with_their_folder_are_an_error(executor, tmp_path):
    check_that_outputs_go_with_their_job(executor, tmp_path / "into")


def test_outputs_that_are_gone_with_their_container_are_an_error(lab_docker, lab_image, tmp_path):
    executor = DockerExecutor(container_image=lab_image, docker_url=lab_docker, grace=1)
    check_that_outputs_go_with_their_job(executor, tmp_path / "into")


def test_outputs_that_are_gone_with_their_folder_on_a_host_are_an_error(lab_ssh, ssh_conn_id, tmp_path):
    check_that_outputs_go_with_their_job(SSHExecutor(ssh_conn_id=ssh_conn_id, grace=1), tmp_path / "into")


def test_pod_that_waits_for_its_outputs_gives_them_and_ends_when_they_are_released(
    lab_kubeconfig, lab_image, tmp_path, capsys
):
    executor = KubernetesExecutor(container_image=lab_image, config_file=lab_kubeconfig, grace=2, linger=600)
    handle = submit(executor, script_job(WRITES))
    end(executor, handle)
    into = tmp_path / "outputs"
    given = json.dumps(executor.to_json())
    assert main(["collect", given, handle.key, "--into", str(into), "--release"]) == 0
    assert (into / "sub/model.txt").read_text() == "good\n"
    with kubernetes.config.new_client_from_config(lab_kubeconfig) as client:
        api = kubernetes.client.CoreV1Api(client)
        wait_until(
            lambda: api.read_namespaced_pod(handle.key, "default").status.phase == "Succeeded", "the pod to end", 60
        )


def test_pod_whose_outputs_were_released_stays_while_another_fetches_them(lab_kubeconfig, lab_image, tmp_path):
    executor = KubernetesExecutor(container_image=lab_image, config_file=lab_kubeconfig, grace=2, linger=20)
    large = 'head -c 64000000 /dev/zero >"$NEMO_AIRFLOW_OUTPUT_DIR/model.bin"'
    driver, handle = start(executor, script_job(large))
    end(executor, handle)
    fetch = [executor.python, "-c", manifest.program("collect"), manifest.BASE, runner_entry()]
    with kubernetes.config.new_client_from_config(lab_kubeconfig) as client:
        slow = kubernetes.stream.stream(
            kubernetes.client.CoreV1Api(client).connect_get_namespaced_pod_exec,
            handle.key, "default", command=fetch, stdout=True, stderr=True, binary=True, _preload_content=False,
        )  # fmt: skip
        try:
            wait_until(lambda: slow.read_stdout(timeout=1), "the first bytes")
            blocking.run(driver.release([handle]))
            assert status(driver, handle).state is JobState.RUNNING
            assert blocking.run(driver.collect(handle, tmp_path)) == [Path("model.bin")]
        finally:
            slow.close()
    assert wait_for_end(driver, handle).state is JobState.SUCCEEDED
