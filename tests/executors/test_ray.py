"""The Ray executor on real clusters, in what the conformance suite does not ask of every executor."""

import dataclasses
import inspect
import json
import logging
import os
import uuid
import zipfile
from pathlib import Path

import httpx
import psutil
import pytest
import ray_jobs
from job_cases import follow, status, wait_for_output, wait_until
from lab.delay_proxy import DelayProxy
from lab.ray_cluster import RayCluster, ray_address  # noqa: F401 - a fixture

from nemo_airflow import blocking, settings
from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, SettingsError, SubmitError
from nemo_airflow.executors.base import Cursor
from nemo_airflow.executors.ray import RayExecutor, api, log, packages
from nemo_airflow.job import FailureKind, Job, JobHandle, JobState
from nemo_airflow.jobs.judge import Policy
from nemo_airflow.jobs.service import JobService
from nemo_airflow.packaging.archive import write_archive
from nemo_airflow.packaging.pattern import PatternPackager
from nemo_airflow.store import PackageStore
from nemo_airflow.testing.services import service_of

TIMEOUT = 120.0
TOKEN = uuid.uuid4().hex

# The fixture of the shared cluster comes by import.
# ruff: noqa: F811


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path_factory.mktemp("home")))
        files = {"ray_jobs.py": inspect.getsource(ray_jobs).encode(), "note.txt": b"a note"}
        yield write_archive(files, PackageStore(settings.packages_folder()))


@pytest.fixture
def make(package):
    def make_job(function, /, *, job=None, **arguments):
        fields = {"key": f"ray-{uuid.uuid4().hex[:20]}", "package": package, **(job or {})}
        plan = {"version": 1, "root": {"_target_": f"ray_jobs:{function}", **arguments}}
        return Job(name=function, plan=plan, allow=("ray_jobs.",), **fields)

    return make_job


@pytest.fixture
def executor(ray_address):
    return RayExecutor(address=ray_address, grace=1.0)


@pytest.fixture
def connect():
    drivers = []

    def open_driver(executor):
        drivers.append(executor.connect())
        return drivers[-1]

    yield open_driver
    for driver in drivers:
        blocking.run(driver.close())


@pytest.fixture
def driver(executor, connect):
    return connect(executor)


def submit(executor, driver, job):
    return blocking.run(driver.submit(executor.render(job)))


async def service_that_follows(executor):
    return JobService.shared(executor)


async def read_all(driver, handle, offset=0):
    data = b""
    while chunks := await driver.read([Cursor(handle, offset + len(data))]):
        data += chunks[0].data
    return data


# What is sent


def test_request_names_its_archives_by_content(executor, make):
    job = make("where")
    first, again = (executor.render(job).payload for _ in range(2))
    other = executor.render(dataclasses.replace(job, package=None)).payload
    assert first == again
    assert first["archives"]["code"] != other["archives"]["code"]
    assert first["call"]["runtime_env"]["working_dir"] == f"gcs://{first['archives']['code']}"
    assert "TOKEN" not in str(executor.render(make("where", job={"env": {"TOKEN": "s3cret"}})).payload)


@pytest.mark.parametrize(
    ("runtime_env", "message"), [({"working_dir": "."}, "working_dir"), ({"py_modules": ["src"]}, "'src'")]
)
def test_runtime_env_that_the_package_stands_for_is_refused(executor, make, runtime_env, message):
    with pytest.raises(ExecutorError, match=message):
        dataclasses.replace(executor, runtime_env=runtime_env).render(make("where"))


def test_code_is_sent_once(executor, driver, make, monkeypatch):
    sent = []
    put = api.RayApi.put_package

    async def counting(self, name, archive, size):
        sent.append(name)
        await put(self, name, archive, size)

    monkeypatch.setattr(api.RayApi, "put_package", counting)
    # A package of its own: that of the other tests may be there already.
    unseen = write_archive({"ray_jobs.py": f"# {uuid.uuid4()}".encode()}, PackageStore(settings.packages_folder()))
    requests = [executor.render(make("where", job={"package": unseen})) for _ in range(3)]
    for request in requests:
        blocking.run(driver.submit(request))
    assert sorted(sent) == sorted({name for request in requests for name in request.payload["archives"].values()})
    assert len(sent) == 4


def test_changes_of_a_package_are_a_whole_tree_for_the_workers(tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "padding.bin").write_bytes(bytes(1 << 20))
    (code / "gone.py").write_text("1")
    packager = PatternPackager(path=str(code))
    packager.package(PackageStore(settings.packages_folder()))
    (code / "gone.py").unlink()
    (code / "new.py").write_text("2")
    (code / os.fsdecode(b"no-text-\xff")).write_text("left to the job itself")
    changed = packager.package(PackageStore(settings.packages_folder()))
    assert changed.base
    with (tmp_path / "code.zip").open("w+b") as file:
        packages.write_code(changed, file)
    with zipfile.ZipFile(tmp_path / "code.zip") as archive:
        names = [name for name in archive.namelist() if not name.startswith(".nemo_airflow/runner/")]
        assert sorted(names) == sorted(
            [f".nemo_airflow/{each.name}" for each in changed.archives] + [packages.ENTRY, "new.py", "padding.bin"]
        )
        assert archive.read("new.py") == b"2"


def test_code_that_is_too_large_is_refused_before_it_is_sent(executor, driver, make, monkeypatch):
    monkeypatch.setattr(packages, "LARGEST", 1000)
    unseen = write_archive({"large": uuid.uuid4().bytes * 1000}, PackageStore(settings.packages_folder()))
    with pytest.raises(SubmitError, match="leave data out of the package") as caught:
        submit(executor, driver, make("where", job={"package": unseen}))
    assert caught.value.kind == FailureKind.QUOTA


def test_job_shows_where_it_comes_from_in_ray(executor, driver, make):
    labels = {"dag_id": "a_dag", "task_id": "a_task"}
    handle = submit(executor, driver, make("where", job={"labels": labels}))
    details = httpx.get(f"{executor.address}/api/jobs/{handle.key}").json()
    assert details["metadata"].items() >= {**labels, "job_name": "where"}.items()
    assert blocking.run(driver.labels([handle])) == {handle.key: labels}
    assert (handle.id, handle.cluster) == (handle.key, executor.address)
    assert handle.submitted_at == details["start_time"] / 1000


def test_env_reaches_the_job_and_runtime_env_too(executor, driver, make):
    executor = dataclasses.replace(
        executor, runtime_env={"env_vars": {"FOR_ALL": "1"}}, env={"OWN": "2"}, python="/usr/bin/python3"
    )
    outcome, _, _ = follow(executor, submit(executor, driver, make("where", _args_=["FOR_ALL", "OWN"])))
    assert outcome.result["env"] == {"FOR_ALL": "1", "OWN": "2"}
    assert outcome.result["python"] == "/usr/bin/python3"


# What comes back


def test_bytes_come_back_unchanged_from_any_offset(executor, driver, make):
    handle = submit(executor, driver, make("write_bytes"))
    outcome, lines, _ = follow(executor, handle)
    assert outcome.succeeded
    assert lines[-1] == "last line"
    whole = blocking.run(read_all(driver, handle))
    job = bytes(range(256)).replace(b"\x1e", "\u241e".encode()) + b"\r\n\r" + "漢".encode()[:2]
    written = b"".join(
        piece if index == 0 else piece.partition(b"\n")[2] for index, piece in enumerate(whole.split(b"\x1e"))
    )
    assert written == job * 200 + b"\nlast line\n"
    for offset in range(1, len(whole), 997):
        assert blocking.run(read_all(driver, handle, offset)) == whole[offset:]


def test_long_log_crosses_the_network_once(executor, driver, make, monkeypatch):
    handle = submit(executor, driver, make("print_burst", count=200_000, width=100))
    wait_until(lambda: status(driver, handle).state.is_final, "the job's end")
    received = []
    more = log._Excerpt._more

    async def counting(self):
        before = len(self._buffer)
        came = await more(self)
        received.append(len(self._buffer) - before)
        return came

    monkeypatch.setattr(log._Excerpt, "_more", counting)
    whole = blocking.run(read_all(driver, handle))
    assert whole.count(b"x" * 100) == 200_000
    limit = Cursor(handle).limit
    assert len(whole) > 4 * limit
    assert sum(received) < len(whole) + 2 * limit


def test_large_outputs_come_back(executor, driver, make, tmp_path):
    handle = submit(executor, driver, make("write_large", megabytes=64))
    outcome, _, _ = follow(executor, handle)
    assert outcome.succeeded
    assert blocking.run(driver.collect(handle, tmp_path)) == [Path("large.bin")]
    assert (tmp_path / "large.bin").stat().st_size == 64 << 20


# Ending early


def test_grace_is_longer_than_rays_own(executor, driver, make, tmp_path):
    executor = dataclasses.replace(executor, grace=20.0)
    handle = submit(executor, driver, make("finish_when_told", seconds=600))
    wait_for_output(driver, handle, b"started")
    blocking.run(driver.cancel([handle]))
    outcome, _, _ = follow(executor, handle)
    assert outcome.status.state is JobState.CANCELLED
    assert blocking.run(driver.collect(handle, tmp_path)) == [Path("checkpoint")]


def test_queued_job_is_cancelled_and_ends_when_its_turn_comes(executor, driver, make, tmp_path):
    all_cpus = dataclasses.replace(executor, entrypoint_num_cpus=4)
    first = submit(all_cpus, driver, make("wait_for", file=str(tmp_path / "go")))
    wait_for_output(driver, first, b"started")
    second = submit(all_cpus, driver, make("wait", seconds=600))
    assert status(driver, second).state is JobState.PENDING
    blocking.run(driver.cancel([second]))
    assert status(driver, second).state is JobState.CANCELLED
    (tmp_path / "go").touch()
    assert follow(executor, first)[0].result == "seen"
    wait_until(lambda: second not in blocking.run(driver.survey()), "Ray to drop the queued job")
    # Ray gives its supervisor the start and the stop side by side, so that on a busy machine it may begin first.
    assert status(driver, second).state is JobState.CANCELLED


# What Ray refuses, and what fails


def test_more_than_the_cluster_has_is_refused(executor, driver, make):
    executor = dataclasses.replace(executor, entrypoint_num_cpus=50, entrypoint_resources={"TPU": 2})
    with pytest.raises(SubmitError, match=r"CPU: 50 asked for, 4 at most on a node; TPU: 2 asked for, 0 at") as caught:
        submit(executor, driver, make("where"))
    assert caught.value.kind == FailureKind.QUOTA


def test_runtime_environment_that_cannot_be_set_up_is_told_in_one_line(executor, driver, make):
    pip = {"packages": ["nemo-absent==1"], "pip_install_options": ["--no-index"]}
    executor = dataclasses.replace(executor, runtime_env={"pip": pip})
    outcome, _, _ = follow(executor, submit(executor, driver, make("where")), seconds=280)
    assert outcome.status.state is JobState.FAILED
    assert outcome.status.failure is FailureKind.IMAGE
    assert "Could not find a version that satisfies the requirement nemo-absent==1" in outcome.message
    assert "\n" not in outcome.message


def test_call_that_ray_does_not_understand_is_the_users_error(executor, driver, make):
    executor = dataclasses.replace(executor, runtime_env={"env_vars": {"NUMBER": 1}})
    outcome, _, _ = follow(executor, submit(executor, driver, make("where")))
    assert outcome.status.failure is FailureKind.USER_ERROR
    assert "runtime_env['env_vars']" in outcome.message
    assert "Traceback" not in outcome.message


def test_interpreter_that_is_not_there_is_told(executor, driver, make):
    executor = dataclasses.replace(executor, python="python9.9")
    outcome, _, _ = follow(executor, submit(executor, driver, make("where")))
    assert (outcome.status.state, outcome.status.exit_code) == (JobState.FAILED, 127)
    assert "exit code 127" in outcome.message


def test_job_of_another_by_the_same_id_is_not_taken(executor, driver, make):
    job = make("where")
    call = {"submission_id": job.key, "entrypoint": "true"}
    httpx.post(f"{executor.address}/api/jobs/", json=call).raise_for_status()
    with pytest.raises(SubmitError, match=job.key):
        submit(executor, driver, job)
    assert blocking.run(driver.find([job.key])) == {}


def test_survey_lists_what_runs(executor, driver, make):
    ended = submit(executor, driver, make("where"))
    follow(executor, ended)
    running = submit(executor, driver, make("wait", seconds=600))
    wait_until(lambda: status(driver, ended).state.is_final, "the end of the first")
    survey = blocking.run(driver.survey())
    assert running in survey
    assert ended not in survey
    blocking.run(driver.cancel([running]))


# A cluster that is away


def test_unreachable_cluster_is_unavailable(connect, make):
    executor = RayExecutor(address="http://127.0.0.1:9")
    driver = connect(executor)
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9"):
        submit(executor, driver, make("where"))


def test_cluster_away_and_back_loses_nothing(ray_address, connect, make, tmp_path):
    with DelayProxy(ray_address.removeprefix("http://")) as proxy:
        executor = RayExecutor(address=f"http://127.0.0.1:{proxy.port}")
        driver = connect(executor)
        handle = submit(executor, driver, make("wait_for", file=str(tmp_path / "go")))
        wait_for_output(driver, handle, b"started")
        proxy.refuse()
        with pytest.raises(BackendUnavailable):
            status(driver, handle)
        (tmp_path / "go").touch()
        proxy.accept()
        outcome, lines, _ = follow(executor, handle)
    assert (outcome.result, lines) == ("seen", ["started"])


# A cluster of several nodes, to which one logs in, and which tests may break


@pytest.fixture(scope="module")
def several_nodes():
    cluster = RayCluster(env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN})
    yield cluster
    cluster.remove()


@pytest.fixture
def cluster(several_nodes):
    """The cluster: a head and one other node, whatever an earlier test has killed."""
    if not several_nodes.has_nodes(2):
        several_nodes.stop()
        several_nodes.start()
        several_nodes.add_worker({"other": 1, "task": 1})
    return several_nodes


@pytest.fixture
def login(cluster, monkeypatch):
    """An executor on that cluster, by a connection with its token."""
    connection = {"conn_type": "ray", "host": cluster.address, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_MY_RAY", json.dumps(connection))
    return RayExecutor(ray_conn_id="my_ray")


def test_what_is_reserved_decides_where_a_job_runs(cluster, login, connect, make):
    executor = login
    driver = connect(executor)
    head, other = sorted(cluster.nodes(), key=lambda node: not node["is_head_node"])[:2]
    on_head = submit(executor, driver, make("where"))
    on_other = submit(dataclasses.replace(executor, entrypoint_resources={"other": 1}), driver, make("where"))
    for handle, node in ((on_head, head), (on_other, other)):
        outcome, lines, warnings = follow(executor, handle)
        assert outcome.succeeded, (outcome, lines, warnings)
        details = cluster.get(f"/api/jobs/{handle.key}").json()
        assert details["driver_node_id"] == node["node_id"]


def test_package_is_there_for_tasks_on_other_nodes(cluster, login, connect, make):
    outcome, _, _ = follow(login, submit(login, connect(login), make("remote_on", resource="task")))
    (other,) = [node["node_id"] for node in cluster.nodes() if "task" in node["resources_total"]]
    assert outcome.result == ["a note", other]


def test_node_that_dies_takes_its_job_along(cluster, login, connect, make):
    worker = cluster.add_worker({"doomed": 1})
    executor = dataclasses.replace(login, entrypoint_resources={"doomed": 1})
    driver = connect(executor)
    handle = submit(executor, driver, make("wait", seconds=600))
    wait_for_output(driver, handle, b"started")
    cluster.kill(worker)
    outcome, _, _ = follow(executor, handle)
    assert outcome.status.failure is FailureKind.NODE_FAILURE
    assert "\n" not in outcome.message
    with pytest.raises(ExecutorError, match="has left"):
        blocking.run(driver.collect(handle, Path("nowhere")))


def test_job_whose_log_is_not_handed_out_is_not_taken_for_a_success(cluster, login, connect, make, monkeypatch):
    # A node whose agent finds its port taken: Ray runs jobs there, and cannot read their logs.
    mute = cluster.add_worker({"mute": 1}, agent=cluster.agent)
    executor = dataclasses.replace(login, entrypoint_resources={"mute": 1})
    driver = connect(executor)
    handle = submit(executor, driver, make("where"))
    wait_until(lambda: "does not hand out its log" in status(driver, handle).reason, "the job's end")
    assert status(driver, handle).state is JobState.RUNNING
    impatient = dataclasses.replace(Policy(), stream=0.0)
    monkeypatch.setattr(blocking.run(service_that_follows(executor)), "_policy", impatient)
    outcome, _, _ = follow(executor, handle)
    assert outcome.status.state is JobState.LOST
    assert "its result is lost" in outcome.message
    cluster.kill(mute)


def test_worker_that_ray_killed_for_memory_is_out_of_memory(cluster, login, connect, make):
    # Ray's memory monitor kills what runs on a node above this share of its memory: here, always.
    worker = cluster.add_worker(
        {"small": 1}, env={"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    )
    executor = dataclasses.replace(login, entrypoint_resources={"small": 1})
    handle = submit(executor, connect(executor), make("wait", seconds=600))
    outcome, _, _ = follow(executor, handle)
    assert outcome.status.failure is FailureKind.OUT_OF_MEMORY
    cluster.kill(worker)


def test_two_clusters_keep_jobs_of_the_same_key_apart(executor, driver, login, connect, make):
    other = login
    others = connect(other)
    job = make("where")
    first = submit(executor, driver, job)
    assert blocking.run(others.find([job.key])) == {}
    second = submit(other, others, job)
    assert first.cluster != second.cluster
    assert executor.connection_key() != other.connection_key()
    blocking.run(others.cancel([second]))
    assert follow(executor, first)[0].succeeded


def test_token_of_the_connection_logs_in(cluster, login, connect, make):
    handle = submit(login, connect(login), make("where"))
    assert follow(login, handle)[0].succeeded
    assert TOKEN not in str(handle) + login.render(make("where")).to_text()
    stranger = RayExecutor(address=cluster.address)
    with pytest.raises(ExecutorError, match="refused the login"):
        submit(stranger, connect(stranger), make("where"))


def test_job_of_a_head_that_was_killed_is_lost(cluster, login, connect, make):
    executor = login
    driver = connect(executor)
    handle = submit(executor, driver, make("wait", seconds=600))
    wait_for_output(driver, handle, b"started")
    processes = [
        process for process in psutil.process_iter() if handle.key in _environment(process).get("NEMO_AIRFLOW_KEY", "")
    ]
    assert processes
    cluster.stop()
    with pytest.raises(BackendUnavailable):
        status(driver, handle)
    cluster.start()
    outcome, _, _ = follow(executor, handle)
    assert outcome.status.state is JobState.LOST
    assert cluster.address in outcome.message
    assert psutil.wait_procs(processes, timeout=300)[1] == []


# Connections


@pytest.mark.parametrize("address", ["ray://head:10001", "head:6379", "http://user:secret@head:8265"])
def test_address_that_is_not_a_dashboards_is_refused(connect, address):
    driver = connect(RayExecutor(address=address))
    with pytest.raises(SettingsError, match="address"):
        blocking.run(driver.find(["a-job"]))


def test_without_connection_or_address_it_is_the_environments(connect, ray_address, monkeypatch):
    nobody = [JobHandle("nobody", "ray", "nobody")]
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(SettingsError, match="RAY_ADDRESS"):
        blocking.run(service_of(connect(RayExecutor())).status(nobody))
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    assert blocking.run(service_of(connect(RayExecutor())).status(nobody))["nobody"].state is JobState.UNKNOWN


def _environment(process):
    try:
        return process.environ()
    except psutil.Error:
        return {}


logging.getLogger("httpx").setLevel(logging.WARNING)
