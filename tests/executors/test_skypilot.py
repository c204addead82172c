"""What only SkyPilot does: its own client and its checks, on a stand-in for its server and the clouds behind it."""

import asyncio
import dataclasses
import importlib
import os
import re
import sys
import time
import uuid

import pytest
import yaml
from job_cases import collect_without_threads_of_others, follow, script_job, start, status, submit, wait_until
from lab.sky_server import sky_server  # noqa: F401 - a fixture

from nemo_airflow import blocking, settings
from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, SubmitError
from nemo_airflow.executors.base import Cursor
from nemo_airflow.executors.secret import Secret
from nemo_airflow.executors.skypilot import SkypilotExecutor, api, log
from nemo_airflow.executors.skypilot.driver import SkypilotDriver
from nemo_airflow.follow import Outcome
from nemo_airflow.job import FailureKind, JobState, JobStatus
from nemo_airflow.reaping import end_orphans, orphans_among, survey
from nemo_airflow.testing.services import service_of

# ruff: noqa: F811


@pytest.fixture(scope="session")
def sky():
    """SkyPilot; what it imports takes seconds, in each process that only looks for tests too."""
    return importlib.import_module("sky")


@pytest.fixture
def executor(sky_server, monkeypatch):
    monkeypatch.setattr(SkypilotDriver, "poll_interval", (0.2, 2.0))
    return SkypilotExecutor(python=sys.executable, grace=1.0)


def wait_until_ended(driver, handles):
    """Waits until SkyPilot says so: a follower is content with the runner's last record, and that process then ends."""
    end = time.monotonic() + 60
    while not all(status.state.is_final for status in blocking.run(service_of(driver).status(handles)).values()):
        assert time.monotonic() < end, "SkyPilot did not say within 60 s that the jobs have ended"
        time.sleep(0.05)


# What is sent


@pytest.mark.parametrize(
    ("fields", "resources"),
    [
        (
            {"cloud": "aws", "region": "us-east-1", "gpus": "H100", "gpus_per_node": 8, "use_spot": True},
            {"infra": "aws/us-east-1", "accelerators": {"H100": 8}, "use_spot": True},
        ),
        (
            {"cloud": "gcp", "region": "us-central1", "zone": "us-central1-a", "cpus": "8+", "memory": "32+"},
            {"infra": "gcp/us-central1/us-central1-a", "cpus": "8+", "memory": "32+"},
        ),
        (
            {"infra": "azure", "instance_type": "Standard_D4s_v5", "disk_size": 100, "disk_tier": "high"},
            {"infra": "azure", "instance_type": "Standard_D4s_v5", "disk_size": 100, "disk_tier": "high"},
        ),
        (
            {"idle_minutes_to_autostop": 30, "autodown": False, "ports": (8080,), "instance_labels": {"team": "ml"}},
            {"autostop": {"idle_minutes": 30, "down": False}, "ports": ["8080"], "labels": {"team": "ml"}},
        ),
        ({"managed": True, "job_recovery": "FAILOVER"}, {"job_recovery": {"strategy": "FAILOVER"}}),
    ],
)  # fmt: skip
def test_skypilot_reads_what_is_meant(sky, executor, fields, resources, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path))
    executor = dataclasses.replace(executor, **fields)
    job = script_job("true")
    settings.bundles_folder().mkdir()
    (settings.bundles_folder() / f"{job.key}.tar").touch()
    task = sky.Task.from_yaml_config(dict(executor.render(job).payload["task"]))
    read = task.to_yaml_config()["resources"]
    assert resources.items() <= {**read, "job_recovery": _plain(read.get("job_recovery"))}.items()


def _plain(recovery):
    return {name: value for name, value in recovery.items() if value is not None} if recovery else None


def test_what_is_shown_is_what_is_sent(executor, sky_server):
    executor = dataclasses.replace(executor, cloud="aws", cpus=4, setup="pip list", num_nodes=2)
    job = script_job("true")
    shown = yaml.safe_load(yaml.safe_dump(executor.render(job).payload["task"]))
    submit(executor, job)
    sent = sky_server.launched[-1]
    assert sent["cluster_name"] == f"nemo-{job.key}"
    assert {name: sent["task"][name] for name in ("name", "num_nodes", "run", "setup", "file_mounts")} == {
        name: shown[name] for name in ("name", "num_nodes", "run", "setup", "file_mounts")
    }
    assert sent["task"]["envs"]["NEMO_AIRFLOW_KEY"] == job.key


def test_archives_do_not_pile_up(executor, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path))
    jobs = [script_job("true"), script_job("true")]
    for job in jobs:
        submit(executor, job)
        for path in settings.bundles_folder().iterdir():
            os.utime(path, (0, 0))
    assert [path.name for path in settings.bundles_folder().iterdir()] == [f"{jobs[1].key}.tar"]


def test_values_of_secrets_are_sent_apart_from_the_rest_and_lie_in_no_archive(
    executor, sky_server, tmp_path, monkeypatch
):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path))
    executor = dataclasses.replace(executor, secrets={"HF_TOKEN": Secret(conn_id="hf")})
    request = dataclasses.replace(executor.render(script_job("true")), values={"HF_TOKEN": "hush-4711"})
    driver = executor.connect()
    blocking.run(driver.submit(request))
    blocking.run(driver.close())
    sent = sky_server.launched[-1]["task"]
    assert sent.pop("secrets") == {"HF_TOKEN": "hush-4711"}
    assert "hush-4711" not in str(sent)
    [archive] = settings.bundles_folder().iterdir()
    assert b"hush-4711" not in archive.read_bytes()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"infra": "aws", "cloud": "gcp"}, "infra or cloud"),
        ({"gpus": "H100", "accelerators": "H100:8"}, "gpus or accelerators"),
        ({"region": "us-east-1"}, "region only with cloud"),
        ({"managed": True, "cluster_name": "mine"}, "managed job"),
        ({"cluster_name": "9lives"}, "9lives"),
        ({"num_nodes": 0}, "at least one machine"),
    ],
)
def test_what_cannot_be_is_refused_at_once(executor, fields, said):
    with pytest.raises(ExecutorError, match=said):
        dataclasses.replace(executor, **fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cloud": "nowhere"}, "nowhere"),
        ({"cpus": "many"}, "many"),
        ({"resources": {"use_spt": True}}, "use_spot"),
        ({"file_mounts": {"~/data": "/no/such/folder"}}, "/no/such/folder"),
    ],
)
def test_skypilots_own_checks_refuse_before_anything_is_sent(executor, sky_server, fields, said):
    before = len(sky_server.launched)
    with pytest.raises(SubmitError, match=said) as caught:
        submit(dataclasses.replace(executor, **fields), script_job("true"))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(sky_server.launched) == before


# How it runs


def test_processes_of_two_machines_find_each_other(executor):
    executor = dataclasses.replace(executor, num_nodes=2, ntasks_per_node=2)
    job = script_job("echo $RANK of $WORLD_SIZE at $MASTER_ADDR > $NEMO_AIRFLOW_OUTPUT_DIR/rank$RANK; echo rank $RANK")
    outcome, lines, _ = follow(executor, submit(executor, job))
    assert outcome.succeeded
    # The log is the first machine's.
    assert sorted(line[-6:] for line in lines) == ["rank 0", "rank 1"]


@pytest.mark.parametrize(("code", "state"), [(3, JobState.FAILED), (0, JobState.SUCCEEDED)])
def test_job_ends_when_its_last_machine_does(executor, tmp_path, code, state):
    executor = dataclasses.replace(executor, num_nodes=2)
    late = tmp_path / "late"
    job = script_job(f"[ $NODE_RANK = 0 ] || {{ sleep 6; touch {late}; exit {code}; }}")
    outcome, _, _ = follow(executor, submit(executor, job))
    assert outcome.status.state is state
    assert late.exists()


@pytest.mark.parametrize(
    ("error", "message", "kind"),
    [
        ("ResourcesUnavailableError", "no H100 in any region", FailureKind.QUOTA),
        ("NoCloudAccessError", "Cloud access is not set up.", FailureKind.USER_ERROR),
    ],
)
def test_launch_that_the_server_refuses(sky, executor, sky_server, monkeypatch, error, message, kind):
    error = getattr(sky.exceptions, error)(message)
    monkeypatch.setattr(sky_server, "refusal", error)
    with pytest.raises(SubmitError, match=re.escape(str(error).partition("[")[0])) as caught:
        submit(executor, script_job("true"))
    assert caught.value.kind is kind


@pytest.fixture
def slow_clouds(sky_server, monkeypatch):
    """Clouds that give no machines until they are told; nobody waits for them for long."""
    monkeypatch.setattr("nemo_airflow.executors.skypilot.driver._REFUSED_WITHIN", 0.5)
    sky_server.clouds_are_slow = True
    yield sky_server
    sky_server.give_machines()


@pytest.mark.parametrize("fields", [{}, {"managed": True}, {"cluster_name": "others"}])
def test_job_whose_machines_are_still_made_is_queued_and_found_and_launched_once(executor, slow_clouds, fields):
    executor = dataclasses.replace(executor, **fields)
    job = script_job("echo it runs")
    driver, handle = start(executor, job)
    before = len(slow_clouds.launched)
    seen = status(driver, handle)
    assert (seen.state, seen.reason) == (JobState.PENDING, "SkyPilot makes the machines")
    other, again = start(executor, job)
    assert (again.id, again.cluster) == (handle.id, handle.cluster)
    (found,) = blocking.run(other.find([job.key])).values()
    assert (found.id, found.cluster) == (handle.id, handle.cluster)
    slow_clouds.give_machines()
    assert follow(executor, handle)[:2] == (Outcome(JobStatus(JobState.SUCCEEDED, 0)), ["it runs"])
    assert len(slow_clouds.launched) == before + 1


def test_launch_that_is_refused_after_a_while_fails_the_job(sky, executor, slow_clouds, monkeypatch):
    handle = submit(executor, script_job("true"))
    error = sky.exceptions.ResourcesUnavailableError("no H100 in any region")
    monkeypatch.setattr(slow_clouds, "refusal", error)
    slow_clouds.give_machines()
    outcome = follow(executor, handle).outcome
    assert (outcome.status.state, outcome.status.failure) == (JobState.FAILED, FailureKind.QUOTA)
    assert "no H100 in any region" in outcome.message


@pytest.mark.parametrize("managed", [False, True])
def test_job_is_cancelled_while_its_machines_are_made(executor, slow_clouds, managed):
    driver, handle = start(dataclasses.replace(executor, managed=managed), script_job("true"))
    blocking.run(driver.cancel([handle]))
    assert follow(executor, handle).outcome.status.state is JobState.CANCELLED
    before = len(slow_clouds.launched)
    slow_clouds.give_machines()
    assert len(slow_clouds.launched) == before


def test_server_that_is_away(executor, sky_server, monkeypatch):
    handle = submit(executor, script_job("sleep 60"))
    driver = executor.connect()
    monkeypatch.setattr(sky_server, "away", True)
    with pytest.raises(BackendUnavailable):
        blocking.run(service_of(driver).status([handle]), 120)
    monkeypatch.setattr(sky_server, "away", False)
    assert blocking.run(service_of(driver).status([handle]))[handle.key].state is JobState.RUNNING
    blocking.run(driver.cancel([handle]))


def test_job_on_a_cluster_that_is_shared_leaves_the_cluster(executor, sky_server):
    executor = dataclasses.replace(executor, cluster_name="shared")
    first, second = (submit(executor, script_job(f"echo job {n}")) for n in range(2))
    assert [follow(executor, handle)[1] for handle in (first, second)] == [["job 0"], ["job 1"]]
    driver = executor.connect()
    wait_until_ended(driver, [first, second])
    blocking.run(driver.remove([first, second]))
    assert "shared" in sky_server.clusters


def test_removing_a_job_removes_its_own_cluster(executor, sky_server):
    handle = submit(executor, script_job("sleep 60"))
    driver = executor.connect()
    with pytest.raises(ExecutorError, match="still running"):
        blocking.run(driver.remove([handle]))
    blocking.run(driver.cancel([handle]))
    assert follow(executor, handle)[0].status.state is JobState.CANCELLED
    blocking.run(driver.remove([handle]))
    assert handle.id not in sky_server.clusters


def test_cluster_that_went_away_is_not_a_failed_job(executor, sky_server):
    handle = submit(executor, script_job("sleep 60"))
    sky_server.down(handle.id)
    assert blocking.run(service_of(executor.connect()).status([handle]))[handle.key].state is JobState.UNKNOWN


def test_survey_lists_what_runs_and_only_ours(executor, sky_server):
    managed = dataclasses.replace(executor, managed=True)
    handles = [submit(executor, script_job("sleep 60")), submit(managed, script_job("sleep 60"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nemo_airflow.executors.skypilot.executor.own_name", lambda key: f"theirs-{key}")
        other = executor.render(script_job("sleep 60")).payload
    sky_server.launch({"task": yaml.safe_dump({**other["task"], "file_mounts": {}}), "cluster_name": "theirs"})
    driver = executor.connect()
    found = blocking.run(driver.survey())
    assert set(handles) <= set(found)
    assert "theirs" not in {handle.id for handle in found}
    blocking.run(driver.cancel(handles))
    assert not set(handles) & set(blocking.run(driver.survey()))


def test_job_whose_task_is_gone_is_found_by_what_its_log_says(executor):
    labels = {"dag_id": "trän", "run_id": "manual__1", "task_id": "t", "map_index": "-1"}
    handle = submit(executor, script_job("echo begun; sleep 60", labels=labels))
    driver = executor.connect()
    end = time.monotonic() + 60
    while blocking.run(driver.labels([handle])) != {handle.key: labels}:
        assert time.monotonic() < end, "the labels did not come"
        time.sleep(0.1)
    orphans = orphans_among(asyncio.run(survey(executor, min_age=0)), lambda labels: "")
    assert [orphan.handle.key for orphan in orphans] == [handle.key]
    asyncio.run(end_orphans(executor, orphans))
    wait_until_ended(driver, [handle])
    assert b"nemo-airflow-labels" not in blocking.run(driver.read([Cursor(handle)]))[0].data


def test_cancel_of_a_job_whose_cluster_is_still_being_made_removes_it(executor, sky_server):
    key = f"s{uuid.uuid4().hex[:20]}"
    sky_server.clusters[f"nemo-{key}"] = 1
    handle = dataclasses.replace(submit(executor, script_job("true")), key=key, id=f"nemo-{key}")
    blocking.run(executor.connect().cancel([handle]))
    assert f"nemo-{key}" not in sky_server.clusters


def test_outputs_of_eight_jobs_at_once_need_no_thread_of_others(executor, tmp_path):
    text = 'head -c 300000 /dev/urandom >"$NEMO_AIRFLOW_OUTPUT_DIR/model.bin"'
    handles = [submit(executor, script_job(text)) for _ in range(2)]
    assert [follow(executor, handle).outcome.status.state for handle in handles] == [JobState.SUCCEEDED] * 2
    collected = collect_without_threads_of_others(executor, handles, tmp_path)
    assert [[str(path) for path in paths] for paths in collected] == [["model.bin"]] * 8
    assert {path.stat().st_size for path in tmp_path.rglob("model.bin")} == {300_000}


# The log


def test_log_of_several_machines_is_the_first_ones():
    text = (
        "Job started. Streaming logs... (Ctrl-C to exit)\n"
        "\x1b[36m(head, rank=0, pid=12)\x1b[0m one\n"
        "\x1b[36m(worker1, rank=1, pid=9, ip=10.0.0.3)\x1b[0m not me\n"
        "(head, rank=0, pid=12) (pid=3) two\n"
        "\x1b[36m(nemo-k1, pid=12)\x1b[0m three\x0bstill three\n"
        "\x1b[36m(nemo-k1, pid=12)\x1b[0m not who"
    )
    assert log.stream(text) == b"one\n(pid=3) two\nthree\x0bstill three\n"


@pytest.mark.parametrize("managed", [False, True])
def test_log_that_has_been_read_is_not_fetched_again(executor, sky_server, tmp_path, managed):
    executor = dataclasses.replace(executor, managed=managed)
    text = f"seq 100000; until [ -e {tmp_path / 'go'} ]; do sleep 0.1; done; seq 100"
    driver, handle = start(executor, script_job(text, heartbeat=0.5))
    data = b""

    def read():
        nonlocal data
        data += b"".join(chunk.data for chunk in blocking.run(driver.read([Cursor(handle, len(data))])))

    wait_until(
        lambda: read() or b'"type":"heartbeat"' in data.partition(b"\n100000\n")[2], "a heartbeat after the lines"
    )
    before = sky_server.log_bytes
    read()
    assert sky_server.log_bytes - before < len(data) / 10
    (tmp_path / "go").touch()
    wait_until(lambda: read() or b'"type":"end"' in data, "the end record")
    (whole,) = blocking.run(executor.connect().read([Cursor(handle)]))
    assert whole.data == data


def test_missing_library_is_named(monkeypatch, executor):
    monkeypatch.setitem(sys.modules, "sky", None)
    with pytest.raises(ImportError, match=r"nemo-airflow\[skypilot\]"):
        api.clusters()
