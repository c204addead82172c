"""What people are told of a task: sent to a real webhook and a real mail server by the callbacks of a DAG that runs."""

import contextlib
import datetime
import email
import email.policy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from airflow.sdk import DAG, AsyncCallback
from dag_database import register
from provider_jobs import check
from webhook import open_webhook

from nemo_airflow import Config, LocalExecutor, NemoRunOperator
from nemo_airflow.cli.ports import hold_port, port_of
from nemo_airflow.exceptions import BackendUnavailable, ConfigError, SettingsError
from nemo_airflow.notifications import NemoRunNotifier
from nemo_airflow.notifications.report import EVENTS, Report
from nemo_airflow.stream import Record
from nemo_airflow.triggers.alerting import Alerting, AlertSettings


@pytest.fixture
def webhook():
    """A webhook: its address, and what was sent to it."""
    with open_webhook() as opened:
        yield opened


class Mailbox:
    """Takes what an SMTP server is given by those who know its password."""

    def __init__(self):
        self.taken = []

    def authenticate(self, server, session, envelope, mechanism, login):
        return AuthResult(success=(login.login, login.password) == (b"airflow", b"letter-4711"))

    async def handle_DATA(self, server, session, envelope):
        self.taken.append((envelope.rcpt_tos, email.message_from_bytes(envelope.content, policy=email.policy.default)))
        return "250 OK"


@pytest.fixture
def mail():
    """An SMTP server that asks for a password: its address, and what was sent to it."""
    mailbox = Mailbox()
    with contextlib.closing(hold_port()) as held:
        server = Controller(
            mailbox,
            hostname="127.0.0.1",
            port=port_of(held),
            authenticator=mailbox.authenticate,
            auth_required=True,
            auth_require_tls=False,
        )
        server.start()
        yield f"127.0.0.1:{server.port}", mailbox.taken
        server.stop()


RUNS = ({"width": 8, "bad": False}, {"width": 16, "bad": True}, {"width": 8, "bad": False})


def test_a_run_is_told_with_its_reason_what_changed_and_links(airflow_database, webhook, tmp_path, monkeypatch):
    from airflow.sdk.log import mask_secret

    mask_secret("sesame-4711")
    url, taken = webhook
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", json.dumps({"conn_type": "apprise", "password": f"{url}/services/T/B/X"}))
    tell = NemoRunNotifier(conn_id="team", message="owner of {{ dag.dag_id }}: ml")
    callbacks = {f"on_{name}_callback": tell for name in ("execute", "success", "failure", "retry")}
    with DAG("told", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        NemoRunOperator(
            task_id="train",
            config=Config(check, width="{{ params.width }}", bad="{{ params.bad }}"),
            job_executor=LocalExecutor(root=str(tmp_path / "jobs")),
            env={"PYTHONPATH": str(Path(__file__).parent)},
            tracker=None,
            deferrable=False,
            **callbacks,
        )
    dag.params = RUNS[0]
    register(dag)
    for day, conf in enumerate(RUNS, start=1):
        dag.test(logical_date=datetime.datetime(2026, 1, day, tzinfo=datetime.UTC), run_conf=conf)
    texts = [sent["text"] for sent in taken]
    assert all(set(sent) == {"text"} for sent in taken)  # as Slack's webhooks have it
    assert [text.splitlines()[0] for text in texts] == [
        "told.train has started",
        "told.train went well",
        "told.train has started",
        "told.train has failed",
        "told.train has started",
        "told.train went well again",
    ]
    failed = texts[3]
    assert "owner of told: ml\n" in failed
    assert "no data for width 16, token ***" in failed
    assert "Traceback" not in failed
    assert "  width: 8 -> 16\n" in failed
    assert "\njob: http" in failed
    assert "/plugin/nemo_job" in failed


def test_an_e_mail_has_the_title_as_its_subject_and_goes_to_all(mail, monkeypatch):
    host, taken = mail
    address = (
        f"mailto://airflow:letter-4711@{host}?mode=insecure&from=airflow@ml.invalid&to=ann@ml.invalid,uma@ml.invalid"
    )
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", json.dumps({"conn_type": "apprise", "password": address}))
    tell = NemoRunNotifier(conn_id="team", message="owner: ml")
    tell({"dag": None, "reason": "timed_out", "run_id": "r1"})
    assert sorted(to for recipients, _ in taken for to in recipients) == ["ann@ml.invalid", "uma@ml.invalid"]
    for _, message in taken:
        assert message["Subject"] == "a task has failed"
        assert "airflow@ml.invalid" in message["From"]
        text = message.get_body(("plain", "html")).get_content()
        assert all(line in text for line in ("owner: ml", "run: r1", "reason: timed_out"))
    wrong = json.dumps({"conn_type": "apprise", "password": address.replace("4711", "1")})
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", wrong)
    with pytest.raises(BackendUnavailable, match="the notification was not taken by all of mailto://") as refused:
        tell({"dag": None, "reason": "timed_out", "run_id": "r1"})
    assert "letter" not in str(refused.value)


def test_only_the_events_that_are_asked_for_are_sent(webhook):
    url, taken = webhook
    tell = NemoRunNotifier(f"{url}/services/x", only=["failed"])
    tell({"dag": None, "reason": "success"})
    tell({"dag": None, "reason": "timed_out", "run_id": "r1"})
    assert [sent["text"] for sent in taken] == ["a task has failed\nrun: r1\nreason: timed_out"]


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_can_be_named(webhook, event):
    url, taken = webhook
    NemoRunNotifier(f"{url}/services/x", event=event)({"dag_run": {"dag_id": "d", "run_id": "r1"}})
    assert taken[0]["text"].startswith(f"{Report(event, 'd').title}\nrun: r1")


async def test_a_deadline_is_told_from_the_triggerer(webhook):
    url, taken = webhook
    await NemoRunNotifier(f"{url}/services/x", event="waiting", context={"dag_run": {"dag_id": "d", "run_id": "r"}})
    assert taken == [{"text": "d still waits to start\nrun: r"}]


async def test_an_alert_of_a_job_that_runs_is_told_with_its_condition(webhook):
    url, taken = webhook
    ti = SimpleNamespace(dag_id="d", task_id="train", run_id="r", try_number=1, map_index=-1)
    alert = {"condition": "loss > 10", "metric": "loss", "value": 12.0, "step": 3}
    context = {"ti": ti, "dag": None, "run_id": "r", "reason": "loss is 12.0 at step 3", "alert": alert}
    await NemoRunNotifier(f"{url}/services/x", context=context)
    assert taken == [{"text": "d.train raises an alert\nrun: r\nreason: loss is 12.0 at step 3"}]


def test_apprise_s_own_addresses_have_a_title_and_the_connection_of_airflows_provider_counts(webhook, monkeypatch):
    url, taken = webhook
    config = {"config": {"path": url.replace("http", "json") + "/x"}}
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", json.dumps({"conn_type": "apprise", "extra": config}))
    NemoRunNotifier(conn_id="team", event="promoted", message="digits v3")({"dag_run": {"dag_id": "d", "run_id": "r"}})
    assert (taken[0]["title"], taken[0]["message"]) == ("d has promoted a model", "digits v3\nrun: r")


def test_what_is_not_taken_or_not_known_is_said_without_the_address_of_a_secret(webhook, monkeypatch, caplog):
    url, _ = webhook
    with pytest.raises(BackendUnavailable, match="the notification was not taken by all of json://127") as refused:
        NemoRunNotifier(f"{url}/refused?token=sesame", event="slow")({})
    assert "sesame" not in str(refused.value)
    with pytest.raises(SettingsError, match="begins with 'smoke' is none that Apprise knows") as unknown:
        NemoRunNotifier("smoke://sesame", event="slow")({})
    assert "sesame" not in str(unknown.value) + caplog.text
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", "apprise://")
    with pytest.raises(SettingsError, match="connection 'team' has no address to notify: set its password"):
        NemoRunNotifier(conn_id="team", event="slow")({})


@pytest.mark.parametrize(("arguments", "said"), [({"event": "done"}, "no event 'done'"), ({}, "give addresses=")])
def test_a_wrong_notifier_is_an_error_of_the_dag(arguments, said):
    with pytest.raises(ConfigError, match=said):
        NemoRunNotifier(**arguments)


async def test_alert_of_a_running_job_is_told_once_also_by_the_next_triggerer(webhook, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path))
    url, taken = webhook
    callback = AsyncCallback(NemoRunNotifier, {"addresses": [f"{url}/services/x"]})
    task = {"dag_id": "d", "task_id": "t", "run_id": "r1"}
    wanted = AlertSettings(["loss > 10"], [{"path": callback.path, "kwargs": callback.kwargs}], task=task)
    record = Record("metrics", {"points": [["loss", 12.5, 7, 0.0]]}, 0.0, 0)
    warnings = []
    alerting = Alerting(wanted, "key", warnings.append)
    assert [alert.text for alert in alerting.take(record)] == ["loss > 10: loss is 12.5 at step 7"]
    await alerting.settle(ended=False)
    assert [sent["text"] for sent in taken] == [
        "d.t raises an alert\nrun: r1\nreason: loss > 10: loss is 12.5 at step 7"
    ], warnings
    assert Alerting(wanted, "key", warnings.append).take(record) == []
    away = AlertSettings(["loss > 10"], [{"path": "nowhere.tell", "kwargs": {}}])
    alerting = Alerting(away, "other", warnings.append)
    alerting.take(record)
    await alerting.settle(ended=True)
    assert warnings == ["the alert is not sent by nowhere.tell: ModuleNotFoundError: No module named 'nowhere'"]
    assert [path.name for path in (tmp_path / "alerts").iterdir()] == ["key.json"]
