"""What only Docker does, on a real daemon."""

import asyncio
import contextlib
import dataclasses
import uuid
from pathlib import Path

import docker
import pytest
from job_cases import follow, run, script_job, submit, wait_for_end, wait_until
from lab.delay_proxy import DelayProxy

from nemo_airflow import blocking, settings
from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, SubmitError
from nemo_airflow.executors.base import Cursor
from nemo_airflow.executors.docker import DockerExecutor
from nemo_airflow.job import FailureKind, JobState, JobStatus
from nemo_airflow.packaging.archive import write_archive
from nemo_airflow.store import PackageStore
from nemo_airflow.testing.services import service_of


@pytest.fixture(scope="module")
def client(lab_docker):
    """Another client than ours, to see with its own eyes what became of things."""
    with contextlib.closing(docker.DockerClient(base_url=lab_docker)) as client:
        yield client


@pytest.fixture
def executor(lab_docker, lab_image):
    return DockerExecutor(container_image=lab_image, docker_url=lab_docker, grace=2)


@pytest.fixture
def driver(executor):
    driver = executor.connect()
    yield driver
    blocking.run(driver.close())


def status(driver, handle):
    return blocking.run(service_of(driver).status([handle]))[handle.key]


def wait_for_output(driver, handle, text):
    wait_until(
        lambda: any(text in chunk.data for chunk in blocking.run(driver.read([Cursor(handle)]))),
        f"{text!r} on the stream",
    )


def names(client):
    # Kubernetes runs its pods on the same daemon, and clears them away when it likes.
    return {
        container.name
        for container in client.containers.list(all=True, ignore_removed=True)
        if not container.name.startswith("k8s_")
    }


# What is asked for


def test_what_is_shown_is_what_is_sent(executor, client):
    executor = dataclasses.replace(
        executor,
        cpus=0.5, memory="256m", shm_size="16m", ulimits=("nofile:512:1024", "core:0"), network="none",
        tmpfs={"/scratch": "size=1m"}, cap_drop=("NET_RAW",), labels={"team": "vision"}, user="65534:65534",
        additional_kwargs={"Hostname": "trainer", "HostConfig": {"OomScoreAdj": 100}},
    )  # fmt: skip
    text = "id -u; ulimit -Sn; ulimit -Hn; df -k /dev/shm | tail -1 | awk '{print $2}'; hostname; ls -d /scratch"
    job = script_job(text, labels={"dag_id": "digits"})
    shown = executor.render(job).payload["container"]
    handle = submit(executor, job)
    outcome, lines, _ = follow(executor, handle)
    assert outcome.succeeded
    assert lines == ["65534", "512", "1024", "16384", "trainer", "/scratch"]
    sent = client.api.inspect_container(job.key)
    assert shown["HostConfig"].items() <= sent["HostConfig"].items()
    assert shown["Labels"] == sent["Config"]["Labels"]
    assert {"team": "vision", "nemo-airflow.dag_id": "digits"}.items() <= shown["Labels"].items()
    assert (sent["Path"], *sent["Args"]) == ("python3", *shown["Cmd"])


def test_gpus_are_asked_for(executor):
    def requests(**fields):
        payload = dataclasses.replace(executor, **fields).render(script_job("")).payload
        return payload["container"]["HostConfig"].get("DeviceRequests")

    assert requests() is None
    assert requests(num_gpus=2) == [{"Count": 2, "Capabilities": [["gpu"]]}]
    assert requests(num_gpus=-1) == [{"Count": -1, "Capabilities": [["gpu"]]}]
    assert requests(gpu_ids=("0", "3")) == [{"DeviceIDs": ["0", "3"], "Capabilities": [["gpu"]]}]


def test_volume_is_mounted(executor, client):
    name = f"nemo-test-{uuid.uuid4().hex[:8]}"
    volume = client.volumes.create(name)
    executor = dataclasses.replace(executor, volumes=(f"{name}:/data",))
    try:
        assert run(executor, "echo kept > /data/note")[0].succeeded
        handle = submit(executor, script_job("cat /data/note"))
        assert follow(executor, handle)[1] == ["kept"]
    finally:
        for container in client.containers.list(all=True, filters={"volume": name}):
            container.remove(force=True)
        volume.remove()


def test_container_has_its_name_its_mounts_its_ports_and_its_name_servers(executor, client):
    executor = dataclasses.replace(
        executor,
        hostname="trainer", dns=("192.0.2.53",), port_bindings={"6006": 0, "53/udp": 0},
        memory_reservation="64m", group_add=("4321",),
        mounts=({"Type": "tmpfs", "Target": "/scratch", "TmpfsOptions": {"SizeBytes": 1 << 20}},),
    )  # fmt: skip
    text = "hostname; grep nameserver /etc/resolv.conf; df -k /scratch | tail -1 | awk '{print $2}'; id -G"
    handle = submit(executor, script_job(text))
    outcome, lines, _ = follow(executor, handle)
    assert outcome.succeeded
    assert lines == ["trainer", "nameserver 192.0.2.53", "1024", "0 4321"]
    host = client.api.inspect_container(handle.key)["HostConfig"]
    assert host["PortBindings"].keys() == {"6006/tcp", "53/udp"}
    assert host["MemoryReservation"] == 64 << 20


def test_several_processes_each_know_their_rank(executor):
    executor = dataclasses.replace(executor, ntasks_per_node=3)
    outcome, lines, _ = run(executor, "echo rank $RANK of $WORLD_SIZE")
    assert outcome.succeeded
    assert sorted(line[-11:] for line in lines) == ["rank 0 of 3", "rank 1 of 3", "rank 2 of 3"]


def test_package_goes_through_the_daemon(executor, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path))
    package = write_archive({"note.txt": b"shipped"}, PackageStore(settings.packages_folder()))
    assert run(executor, "cat note.txt", package=package)[1] == ["shipped"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pull": "sometimes"}, "pull='sometimes'"),
        ({"num_gpus": 1, "gpu_ids": ("0",)}, "not both"),
        ({"ntasks_per_node": 0}, "ntasks_per_node=0"),
        ({"memory": "8 apples"}, "memory='8 apples'"),
        ({"ulimits": ("memlock:much",)}, "'memlock:much'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(executor, fields, said):
    with pytest.raises(ExecutorError, match=said):
        dataclasses.replace(executor, **fields).render(script_job("true"))


# Why a job does not start


def refusal(executor, client):
    before = names(client)
    with pytest.raises(SubmitError) as caught:
        submit(executor, script_job("true"))
    assert names(client) == before, "something was left behind"
    assert "\n" not in str(caught.value)
    return caught.value


def test_image_that_cannot_be_pulled(executor, client):
    executor = dataclasses.replace(executor, container_image="127.0.0.1:9/no-such-image:1")
    error = refusal(executor, client)
    assert error.kind is FailureKind.IMAGE
    assert "127.0.0.1:9/no-such-image:1" in str(error)


def test_image_that_must_not_be_pulled(executor, client):
    error = refusal(dataclasses.replace(executor, container_image="no-such-image:1", pull="never"), client)
    assert error.kind is FailureKind.IMAGE


def test_more_processors_than_there_are(executor, client):
    error = refusal(dataclasses.replace(executor, cpus=4096.0), client)
    assert error.kind is FailureKind.QUOTA


def test_gpus_where_there_are_none(executor, client):
    assert refusal(dataclasses.replace(executor, num_gpus=1), client).kind is FailureKind.QUOTA


def test_folder_that_cannot_be_mounted(executor, client):
    error = refusal(dataclasses.replace(executor, volumes=("relative/folder:/data",)), client)
    assert error.kind is FailureKind.USER_ERROR


def test_name_that_another_has_taken(executor, client, lab_image):
    job = script_job("true")
    other = client.containers.create(lab_image, ["true"], name=job.key)
    try:
        with pytest.raises(SubmitError, match=r"a container named .* of another program"):
            submit(executor, job)
        assert status(executor.connect(), dataclasses.replace(handle_of(job), id="")).state is JobState.UNKNOWN
    finally:
        other.remove()


def handle_of(job):
    from nemo_airflow.job import JobHandle

    return JobHandle(job.key, "docker", "")


def test_no_daemon(executor, tmp_path):
    executor = dataclasses.replace(executor, docker_url=f"unix://{tmp_path}/docker.sock")
    with pytest.raises(BackendUnavailable, match=r"docker\.sock"):
        submit(executor, script_job("true"))


def test_connection_that_is_not_there(executor):
    executor = dataclasses.replace(executor, docker_conn_id="no_such_registry", container_image="127.0.0.1:9/x:1")
    with pytest.raises(Exception, match="no_such_registry"):
        submit(executor, script_job("true"))


# Why a job ends


def test_more_memory_than_the_limit(executor):
    executor = dataclasses.replace(executor, memory="48m")
    plan = {"version": 1, "root": {"_target_": "operator:mul", "_args_": ["x", 200 << 20]}}
    job = dataclasses.replace(script_job(""), plan=plan, allow=("operator:mul",))
    status = follow(executor, submit(executor, job))[0].status
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.OUT_OF_MEMORY)


def test_image_without_the_interpreter(executor):
    executor = dataclasses.replace(executor, python="python9")
    status = follow(executor, submit(executor, script_job("true")))[0].status
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.IMAGE)
    assert "python9" in status.reason


def test_container_killed_from_outside(executor, driver, client):
    handle = submit(executor, script_job("echo started; sleep 600"))
    wait_for_output(driver, handle, b"started")
    client.api.kill(handle.key, "SIGKILL")
    status = wait_for_end(driver, handle)
    assert (status.state, status.failure, status.exit_code) == (JobState.FAILED, FailureKind.NODE_FAILURE, 137)


def test_container_stopped_from_outside_ends_the_job_in_order(executor, driver, client):
    handle = submit(executor, script_job("trap 'echo saved; exit 0' TERM; echo started; while :; do sleep 0.1; done"))
    wait_for_output(driver, handle, b"started")
    client.api.stop(handle.key)
    outcome, lines, _ = follow(executor, handle)
    assert (lines[0], lines[-1]) == ("started", "saved")
    assert (outcome.status.state, outcome.status.failure) == (JobState.FAILED, FailureKind.NODE_FAILURE)


def test_container_that_was_removed_is_lost(executor, driver, client, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_LOST_AFTER", "2")
    executor = dataclasses.replace(executor, timeout=59)  # a service of its own, with this setting
    handle = submit(executor, script_job("echo started; sleep 600"))
    wait_for_output(driver, handle, b"started")
    client.api.remove_container(handle.key, force=True)
    assert status(driver, handle).state is JobState.UNKNOWN
    outcome, _, _ = follow(executor, handle)
    assert (outcome.status.state, outcome.status.failure) == (JobState.LOST, FailureKind.LOST)


def test_end_is_known_when_the_container_is_gone(executor, driver, client):
    handle = submit(executor, script_job("exit 3"))
    assert wait_for_end(driver, handle).exit_code == 3
    client.api.remove_container(handle.key)
    assert status(driver, handle) == JobStatus(JobState.FAILED, 3, FailureKind.USER_ERROR, "ended with exit code 3")


def test_ended_container_that_is_started_again_does_not_run_the_job_again(executor, driver, client):
    handle = submit(executor, script_job("echo ran >> $NEMO_AIRFLOW_OUTPUT_DIR/runs"))
    assert wait_for_end(driver, handle).state is JobState.SUCCEEDED
    client.api.start(handle.key)
    client.api.wait(handle.key)
    assert status(driver, handle).state is JobState.SUCCEEDED
    assert status(executor.connect(), handle).state is JobState.SUCCEEDED


def test_log_that_the_daemon_has_cut_is_said_to_be(executor):
    small = {"HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "20k"}}}}
    executor = dataclasses.replace(executor, additional_kwargs=small)
    handle = submit(executor, script_job("seq 20000; sleep 1; echo end"))
    wait_for_end(executor.connect(), handle)
    outcome, lines, said = follow(executor, handle)
    assert outcome.succeeded
    assert lines[-1] == "end"
    assert any("are gone" in warning for warning in said)


def log_path(client, handle):
    path = Path(client.api.inspect_container(handle.key)["LogPath"])
    assert path.exists(), f"the daemon keeps its logs where this test cannot break them: {path}"
    return path


def test_container_whose_log_cannot_be_read_is_its_own_trouble(executor, driver, client):
    broken = submit(executor, script_job("echo started; sleep 600"))
    healthy = submit(executor, script_job("echo healthy; sleep 600"))
    wait_for_output(driver, broken, b"started\n")
    wait_for_output(driver, healthy, b"healthy\n")
    path = log_path(client, broken)
    path.rename(path.with_suffix(".away"))
    path.mkdir()
    chunks = {chunk.key: chunk for chunk in blocking.run(driver.read([Cursor(broken), Cursor(healthy)]))}
    assert (chunks[broken.key].data, b"healthy" in chunks[healthy.key].data) == (b"", True)
    assert "is a directory" in chunks[broken.key].trouble
    path.rmdir()
    path.with_suffix(".away").rename(path)
    wait_for_output(driver, broken, b"started")
    blocking.run(driver.cancel([broken, healthy]))


def test_runners_own_copy_serves_where_the_log_of_an_ended_container_cannot_be_read(executor, driver, client):
    handle = submit(executor, script_job("seq 100; exit 3"))
    assert wait_for_end(driver, handle).exit_code == 3
    path = log_path(client, handle)
    path.unlink()
    path.mkdir()
    outcome, lines, said = follow(executor, handle)
    path.rmdir()
    assert (outcome.status.exit_code, lines, said) == (3, [str(number) for number in range(1, 101)], [])


def test_daemon_that_answers_nothing_delays_no_other(executor, driver, lab_docker):
    handle = submit(executor, script_job("echo started; sleep 600"))
    with DelayProxy(lab_docker) as proxy:
        silent = dataclasses.replace(executor, docker_url=f"tcp://127.0.0.1:{proxy.port}").connect()
        assert status(silent, handle).state.is_final is False
        proxy.stall()

        async def look_at_both():
            stuck = [asyncio.create_task(silent.look([handle])) for _ in range(50)]
            seen = (await driver.look([handle]))[handle.key]
            waiting = not any(task.done() for task in stuck)
            for task in stuck:
                task.cancel()
            return seen, waiting

        seen, waiting = blocking.run(look_at_both())
        assert (seen.is_alive, waiting) == (True, True)
    blocking.run(driver.cancel([handle]))


# Half-done submits, and what is left


def test_container_that_was_created_and_never_started_is_taken_over(executor, driver, client, monkeypatch):
    monkeypatch.setattr("nemo_airflow.executors.docker.submission._PATIENCE", 0.5)
    job = script_job("echo once")
    payload = executor.render(job).payload
    left = client.api.create_container_from_config(payload["container"], job.key)["Id"]
    assert blocking.run(driver.find([job.key])) == {}
    handle = submit(executor, job)
    assert handle.id != left
    assert follow(executor, handle)[1] == ["once"]


def test_full_disk_on_the_way_leaves_nothing(executor, client, monkeypatch):
    def full(self, container, archive):
        from nemo_airflow.executors.docker.api import Refused

        raise Refused(500, "write /nemo-airflow/job/package.tar.gz: no space left on device", "write")

    # A disk cannot be filled here without harm to the other tests.
    monkeypatch.setattr("nemo_airflow.executors.docker.api.Docker.put", full)
    assert refusal(executor, client).kind is FailureKind.QUOTA


def test_survey_and_labels(executor, driver):
    labels = {"dag_id": "digits", "run_id": "manual__1"}
    handle = submit(executor, script_job("echo started; sleep 600", labels=labels))
    assert handle in blocking.run(driver.survey())
    assert blocking.run(driver.labels([handle])) == {handle.key: labels}
    blocking.run(driver.cancel([handle]))
    assert wait_for_end(driver, handle).state is JobState.CANCELLED
    assert handle not in blocking.run(driver.survey())


def test_ended_containers_are_removed_after_their_time(executor, client):
    short, kept = dataclasses.replace(executor, ttl=0.5), dataclasses.replace(executor, ttl=None)
    gone, stays = submit(short, script_job("true")), submit(kept, script_job("true"))
    for handle in (gone, stays):
        client.api.wait(handle.key)
    fresh = executor.connect()
    wait_until(lambda: blocking.run(fresh.sweep()) or gone.key not in names(client), "the old container to go")
    assert stays.key in names(client)
    client.api.remove_container(stays.key)
