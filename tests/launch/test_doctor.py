"""What the doctor says of this machine: each check is proved by breaking that thing."""

import datetime
import json

import pytest

from nemo_airflow import MLflowTracker
from nemo_airflow.cli import main
from nemo_airflow.job import Job
from nemo_airflow.tracking import calls
from nemo_airflow.tracking.outbox import Outbox
from nemo_airflow.tracking.run import TrackedRun
from nemo_airflow.tracking.undelivered import Undelivered


@pytest.fixture(scope="module")
def runs(new_mlflow, tmp_path_factory):
    """A store of runs for all."""
    return new_mlflow(tmp_path_factory.mktemp("runs") / "mlflow.db")


@pytest.fixture
def home(tmp_path, monkeypatch, runs):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", runs)
    monkeypatch.delenv("NEMO_AIRFLOW_STORE", raising=False)
    return tmp_path / "home"


def examine(capsys, *targets, code):
    capsys.readouterr()
    assert main(["doctor", *targets, "-o", "json"]) == code
    found = json.loads(capsys.readouterr().out)
    title = targets[0] if targets else "this machine"
    return {finding["name"]: finding for finding in found[" ".join(title.split()) if "\n" in title else title]}


def test_a_machine_that_has_all_is_well(home, airflow_database, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "store"))
    found = examine(capsys, code=0)
    for name in ("nemo-airflow", "git", "folder", "shared store", "MLflow"):
        assert found[name]["verdict"] == "ok", found[name]
    assert not [each for each in (tmp_path / "store").rglob("*") if each.is_file()]
    assert not list(home.glob(".doctor*"))


def test_an_examination_leaves_no_run_behind(home, airflow_database, runs, capsys):
    from mlflow import MlflowClient

    examine(capsys, code=0)
    client = MlflowClient(runs)
    [experiment] = [each for each in client.search_experiments() if each.name == "nemo_airflow doctor"]
    assert not client.search_runs([experiment.experiment_id])


BROKEN = {
    "git": lambda patch, tmp_path: patch.setenv("PATH", str(tmp_path)),
    "folder": lambda patch, tmp_path: patch.setenv("NEMO_AIRFLOW_HOME", f"{tmp_path}/file/home"),
    "settings": lambda patch, tmp_path: patch.setenv("NEMO_AIRFLOW_DEFER_AFTER", "soon"),
    "shared store": lambda patch, tmp_path: patch.setenv("NEMO_AIRFLOW_STORE", f"{tmp_path}/file/store"),
    "MLflow": lambda patch, tmp_path: patch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/none/mlflow.db"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_fails_with_what_mends_it(home, airflow_database, tmp_path, monkeypatch, capsys, name):
    (tmp_path / "file").touch()
    BROKEN[name](monkeypatch, tmp_path)
    finding = examine(capsys, code=1)[name]
    assert finding["verdict"] == "fail"
    assert finding["said"]
    assert finding["fix"] or "set" in finding["said"]


def test_an_mlflow_server_that_is_away_fails(home, airflow_database, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    finding = examine(capsys, code=1)["MLflow"]
    assert finding["verdict"] == "fail"
    assert "127.0.0.1:9" in finding["said"]


def test_runs_that_wait_for_a_server_are_told(home, airflow_database, capsys):
    assert "spool" not in examine(capsys, code=0)
    job = Job(key="k1", name="train", plan={"version": 1, "root": None})
    run = TrackedRun(MLflowTracker(tracking_uri="http://127.0.0.1:9"), job, "e", shares_filesystem=False)
    outbox = Outbox()
    outbox.put(calls.tags({"a": "b"}))
    Undelivered("k1", None).keep(run, outbox, "")
    finding = examine(capsys, code=0)["spool"]
    assert finding["said"].startswith("1 runs wait in ")
    assert finding["fix"] == "nemo-airflow sync"


def test_a_triggerer_is_alive_as_long_as_it_says_so(home, airflow_database, capsys):
    from airflow.jobs.job import Job as Process
    from airflow.utils.session import create_session

    assert examine(capsys, code=0)["triggerer"]["verdict"] == "warn"
    now = datetime.datetime.now(datetime.UTC)
    with create_session() as session:
        job = Process(heartrate=5)
        job.job_type, job.state, job.latest_heartbeat = "TriggererJob", "running", now
        session.add(job)
        session.flush()
        number = job.id
    try:
        assert examine(capsys, code=0)["triggerer"]["said"] == "1 alive"
        with create_session() as session:
            session.get(Process, number).latest_heartbeat = now - datetime.timedelta(minutes=5)
        assert examine(capsys, code=0)["triggerer"]["verdict"] == "warn"
    finally:
        with create_session() as session:
            session.delete(session.get(Process, number))


def test_a_report_has_what_is_needed_and_no_secret(home, airflow_database, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:sesame-1234@127.0.0.1:9")
    assert main(["doctor", "--bundle", str(tmp_path / "report.json")]) == 1
    text = (tmp_path / "report.json").read_text()
    report = json.loads(text)
    assert report["packages"]["nemo-airflow"]
    assert report["settings"]["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:9"
    assert report["findings"]["this machine"]
    assert "sesame" not in text + capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere", "'nowhere' is neither a connection nor an executor"),
        ("kind: dokcer", "no executor of kind 'dokcer'"),
        ("kind: docker\ncontainer_image: a\ndocker_url: tcp://127.0.0.1:9", "cannot be reached"),
        ("kind: ray\naddress: http://127.0.0.1:9", "127.0.0.1:9"),
    ],
)
def test_a_target_that_is_none_or_away_is_said_in_one_line(home, airflow_database, capsys, target, said):
    [finding] = examine(capsys, target, code=1).values()
    assert finding["verdict"] == "fail"
    assert said in finding["said"]


def test_a_connection_that_no_executor_uses_is_said(home, airflow_database, monkeypatch, capsys):
    monkeypatch.setenv("AIRFLOW_CONN_BASE", "postgres://u:p@h/d")
    [finding] = examine(capsys, "base", code=1).values()
    assert "has the type 'postgres', which no executor uses" in finding["said"]


def test_the_terminal_shows_each_finding_and_its_mend(home, airflow_database, monkeypatch, capsys):
    monkeypatch.setenv("NEMO_AIRFLOW_DEFER_AFTER", "soon")
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "  ok    git " in shown
    assert "  fail  settings " in shown
    assert "to mend it: set NEMO_AIRFLOW_STORE to a shared folder" in shown
