"""Secrets of a task: read when its job is submitted, and what is wrong with one is said before anything runs."""

import datetime
import hashlib
import json
import subprocess
import uuid

import operator_jobs as jobs
import pytest
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException, ErrorType
from airflow.sdk.execution_time import supervisor, task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection, GetVariable
from dag_database import register

from nemo_airflow import Config, GitArchivePackager, LocalExecutor, NemoRunOperator, Secret
from nemo_airflow.config import build
from nemo_airflow.connections import aget_connection
from nemo_airflow.exceptions import ConfigError, ExecutorArgumentError, NotDefinedError, SettingsError, SubmitError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.executors.secret import read_secrets

TOKEN = "hf_9a8b7c6d5e4f"
GIVEN = {"TOKEN": Secret(conn_id="hf")}


@pytest.fixture
def hf(monkeypatch):
    def define(**fields):
        monkeypatch.setenv("AIRFLOW_CONN_HF", json.dumps({"conn_type": "http", **fields}))

    define(password=TOKEN)
    return define


@pytest.fixture
def run(defaults, task_context):
    """Runs a job that returns the digest of ``$TOKEN``, and returns that; the operator's arguments can be given."""

    def run_task(**arguments):
        with DAG("secrets", schedule=None) as dag:
            task = NemoRunOperator(
                task_id="t",
                config=Config(jobs.digest_of, variable="TOKEN"),
                deferrable=False,
                **{**defaults, **arguments},
            )
        return task.execute(task_context(dag))

    return run_task


def folders(root):
    return sorted(path.name for path in root.iterdir() if path.name[0] != ".") if root.exists() else []


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_job_has_the_secret_and_its_folder_does_not(run, hf, root):
    assert run(secrets=GIVEN) == digest(TOKEN)
    [key] = folders(root)
    files = [path for path in (root / key).rglob("*") if path.is_file()]
    assert "job.json" in {path.name for path in files}
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []


def test_what_would_be_sent_is_shown_with_the_secrets_name(defaults, hf, task_context):
    with DAG("secrets", schedule=None) as dag:
        task = NemoRunOperator(task_id="t", config=Config(jobs.number), secrets=GIVEN, **defaults)
    text = task.render(task_context(dag))
    assert "# secret TOKEN=<secret of connection 'hf'>\n" in text
    assert TOKEN not in text


def test_a_secret_of_the_task_wins_over_one_of_the_executor(run, hf, defaults, monkeypatch):
    monkeypatch.setenv("AIRFLOW_VAR_OTHER", "another value")
    executor = LocalExecutor(root=defaults["job_executor"].root, secrets={"TOKEN": Secret(variable="other")})
    assert run(job_executor=executor) == digest("another value")
    assert run(job_executor=executor, secrets=GIVEN) == digest(TOKEN)


def test_a_rotated_secret_is_the_same_job_and_another_name_is_another(hf, defaults, task_context):
    def prepared(secrets):
        with DAG("secrets", schedule=None) as dag:
            task = NemoRunOperator(task_id="t", config=Config(jobs.number), secrets=secrets, **defaults)
        return task._prepare(task_context(dag)).digest

    first = prepared(GIVEN)
    hf(password="rotated since then")
    assert prepared(GIVEN) == first
    assert (
        len({first, prepared(None), prepared({"OTHER": Secret(conn_id="hf")}), prepared({"TOKEN": Secret("h2")})}) == 4
    )


@pytest.mark.parametrize(
    ("secret", "value"),
    [
        (Secret("hf"), TOKEN),
        (Secret("hf", field="login"), "ann"),
        (Secret("hf", field="host"), "host.example"),
        (Secret("hf", field="extra.key"), "of the extra fields"),
        (Secret("hf", field="extra.nested"), '{"a": [1]}'),
        (Secret("hf", field="uri"), f"http://ann:{TOKEN}@host.example/?"),
        (Secret(variable="v"), "of a variable"),
    ],
)
def test_each_field_can_be_a_secret(secret, value, hf, monkeypatch):
    hf(password=TOKEN, login="ann", host="host.example", extra={"key": "of the extra fields", "nested": {"a": [1]}})
    monkeypatch.setenv("AIRFLOW_VAR_V", "of a variable")
    read = read_secrets({"TOKEN": secret})["TOKEN"]
    assert read.startswith(value) if secret.field == "uri" else read == value


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (Secret("nope"), "secret TOKEN: connection 'nope' is not defined: add it with `airflow connections add nope"),
        (Secret("hf"), "secret TOKEN: connection 'hf' has no password"),
        (Secret("hf", field="extra.key"), "secret TOKEN: the extra fields of connection 'hf' have no 'key'"),
        (Secret(variable="nope"), "secret TOKEN: variable 'nope' is not defined: add it with `airflow variables set"),
        (Secret(variable="v"), "secret TOKEN: variable 'v' is empty"),
        (Secret(variable="large"), "secret TOKEN: the value of variable 'large' has a NUL or is larger than 64 KiB"),
    ],
)
def test_a_secret_that_is_not_there_fails_for_good_before_anything_is_submitted(
    run, hf, root, monkeypatch, secret, message
):
    hf(login="ann")
    monkeypatch.setenv("AIRFLOW_VAR_V", "")
    monkeypatch.setenv("AIRFLOW_VAR_LARGE", "x" * 70_000)
    with pytest.raises(AirflowFailException, match=r"^secret TOKEN") as caught:
        run(secrets={"TOKEN": secret})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert folders(root) == []


class Away:
    """A secrets back-end whose server does not answer."""

    def get_connection(self, conn_id):
        raise ConnectionError("vault.example: timed out with token hunter2")

    get_variable = get_connection


@pytest.mark.parametrize("secret", [Secret("nope"), Secret(variable="nope")])
def test_a_secrets_back_end_that_is_away_is_asked_again_by_the_next_try(run, root, monkeypatch, secret):
    loaded = supervisor.ensure_secrets_backend_loaded()
    monkeypatch.setattr(supervisor, "ensure_secrets_backend_loaded", lambda: [Away(), *loaded])
    with pytest.raises(
        SettingsError, match=r"secret TOKEN: .* cannot be read from Airflow: Away does not answer"
    ) as caught:
        run(secrets={"TOKEN": secret})
    assert "hunter2" not in str(caught.value)
    assert folders(root) == []


async def test_a_trigger_does_not_take_a_secrets_back_end_that_is_away_for_one_that_knows_no_connection(monkeypatch):
    with pytest.raises(NotDefinedError):
        await aget_connection("nope")
    loaded = supervisor.ensure_secrets_backend_loaded()
    monkeypatch.setattr(supervisor, "ensure_secrets_backend_loaded", lambda: [Away(), *loaded])
    with pytest.raises(SettingsError, match="cannot be read from Airflow: Away does not answer") as caught:
        await aget_connection("nope")
    assert not isinstance(caught.value, NotDefinedError)


class Supervisor:
    """Stands for the process that asks Airflow's API on behalf of a task."""

    def __init__(self, error):
        self.error = error

    def send(self, message):
        return ErrorResponse(error=self.error) if isinstance(message, (GetConnection, GetVariable)) else None


@pytest.mark.parametrize("secret", [Secret("nope"), Secret(variable="nope")])
def test_an_api_that_does_not_answer_is_told_apart_from_one_that_knows_no_such_name(monkeypatch, secret):
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(ErrorType.API_SERVER_ERROR), raising=False)
    with pytest.raises(SettingsError, match=r"secret TOKEN: .*: Airflow's API does not answer \(API_SERVER_ERROR\)"):
        read_secrets({"TOKEN": secret})
    for unknown in (ErrorType.CONNECTION_NOT_FOUND, ErrorType.VARIABLE_NOT_FOUND):
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(unknown), raising=False)
        with pytest.raises(SubmitError, match=r"secret TOKEN: .* is not defined"):
            read_secrets({"TOKEN": secret})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"secrets": {"TOKEN": "hf_9a8b7c6d5e4f"}},
            r"the task: secrets\['TOKEN'\] is str, not a Secret: put the value",
        ),
        ({"secrets": ["hf_9a8b7c6d5e4f"]}, "the task: secrets is list, not a mapping"),
        ({"secrets": {"1 TOKEN": Secret("hf")}}, "not that of an environment variable"),
        ({"secrets": GIVEN, "env": {"TOKEN": "x"}}, "TOKEN is given in env and in secrets"),
        ({"secrets": GIVEN, "job_executor": LocalExecutor(env={"TOKEN": "x"})}, "TOKEN is given in env and in secrets"),
    ],
)
def test_secrets_that_are_not_given_by_name_are_refused_where_they_are_written(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        NemoRunOperator(task_id="t", config=Config(jobs.number), **arguments)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "takes conn_id=... or variable=..."),
        ({"conn_id": ""}, "takes conn_id=... or variable=..."),
        ({"conn_id": "hf", "variable": "v"}, "one of them"),
        ({"conn_id": "hf", "field": "passwd"}, "field='passwd' is not one of password, login"),
        ({"conn_id": "hf", "field": "extra."}, "is not one of"),
    ],
)
def test_a_secret_that_names_nothing_is_refused(fields, message):
    with pytest.raises(ExecutorArgumentError, match=message):
        Secret(**fields)


class Elsewhere(LocalExecutor):
    """An executor of another distribution, whose driver knows no secrets."""

    takes_secrets = False


def test_an_executor_that_cannot_hide_a_secret_refuses_it_where_it_is_written():
    with pytest.raises(ConfigError, match="Elsewhere has no way to give a job a secret"):
        NemoRunOperator(task_id="t", config=Config(jobs.number), job_executor=Elsewhere(), secrets=GIVEN)
    assert Executor.takes_secrets is False


def test_an_executors_secrets_are_names_in_its_json_form_and_come_back(hf):
    executor = LocalExecutor(secrets={"A": Secret("hf", field="login"), "B": Secret(variable="v")})
    data = json.loads(json.dumps(executor.to_json()))
    assert data["secrets"]["A"] == {"conn_id": "hf", "field": "login", "variable": None}
    assert executor_from_json(data).secrets == executor.secrets
    assert build(Config(LocalExecutor, secrets={"A": Config(Secret, conn_id="hf")})).secrets == {"A": Secret("hf")}


def test_a_try_that_finds_the_job_of_an_earlier_one_needs_no_secret(run, hf, root, monkeypatch):
    assert run(secrets=GIVEN) == digest(TOKEN)
    monkeypatch.delenv("AIRFLOW_CONN_HF")
    assert run(secrets=GIVEN) == digest(TOKEN)
    assert len(folders(root)) == 1


def test_a_patch_with_the_secret_is_not_published_though_nothing_else_has_read_it(run, hf, tmp_path, root, monkeypatch):
    token = uuid.uuid4().hex  # no other test of this process has told it to Airflow
    hf(password=token)
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    code = tmp_path / "code"
    code.mkdir()
    (code / "settings.txt").write_text("none\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(code), *words], check=True)
    (code / "settings.txt").write_text(f"token = {token}\n")
    run(packager=GitArchivePackager(path=str(code), uncommitted="include"), secrets=GIVEN)
    names = [path.name for path in (tmp_path / "shared").rglob("*") if path.is_file()]
    assert [name for name in names if name.endswith(".tar.gz") or name.endswith(".tar.zst")]
    assert [name for name in names if name.endswith(".patch")] == []


def test_the_id_of_a_connection_may_be_a_template(run, hf, defaults, task_context):
    with DAG("secrets", schedule=None, params={"conn": "hf"}) as dag:
        task = NemoRunOperator(
            task_id="t", config=Config(jobs.digest_of, variable="TOKEN"), deferrable=False,
            secrets={"TOKEN": Secret("{{ params.conn }}")}, **defaults,
        )  # fmt: skip
    context = {**task_context(dag), "params": {"conn": "hf"}, "task": task}
    task.render_template_fields(context)
    assert task.execute(context) == digest(TOKEN)
    assert TOKEN not in repr(task.secrets)


@task.nemo(secrets=GIVEN, tracker=None, deferrable=False)
def tell(times):
    return Config(jobs.digest_of, variable="TOKEN")


@pytest.mark.usefixtures("airflow_database")
def test_decorated_and_mapped_tasks_take_secrets(hf, defaults):
    with DAG("secret_tasks", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        tell.override(job_executor=defaults["job_executor"], env=defaults["env"])(times=1)
        NemoRunOperator.partial(
            task_id="mapped",
            config=Config(jobs.digest_of, variable="TOKEN"),
            secrets=GIVEN,
            deferrable=False,
            **defaults,
        ).expand(experiment=["one", "two"])
        NemoRunOperator.partial(
            task_id="each", config=Config(jobs.digest_of, variable="TOKEN"), deferrable=False, **defaults
        ).expand(secrets=[GIVEN, {"TOKEN": Secret("hf", field="login")}])
    register(dag)
    hf(password=TOKEN, login="annabel")
    run = dag.test()
    tasks = {(ti.task_id, ti.map_index): ti for ti in run.get_task_instances()}
    assert {ti.state for ti in tasks.values()} == {"success"}, tasks
    results = {name: ti.xcom_pull(task_ids=name[0], map_indexes=name[1]) for name, ti in tasks.items()}
    expected = dict.fromkeys([("tell", -1), ("mapped", 0), ("mapped", 1), ("each", 0)], digest(TOKEN))
    assert results == {**expected, ("each", 1): digest("annabel")}
