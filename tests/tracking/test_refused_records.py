"""A point, tag or parameter that MLflow refuses for good costs itself alone, and is named in one warning."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy
from tracking_cases import Server, end

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.job import JobState, JobStatus
from nemo_airflow.tracking import calls
from nemo_airflow.tracking.base import Metric, PartlyRefusedError, RunRef, UploadWatch
from nemo_airflow.tracking.mlflow import MLflowTracker, artifact_errors, fields
from nemo_airflow.tracking.mlflow.batches import write_accepted
from nemo_airflow.tracking.mlflow.store import Store, is_transient_answer
from nemo_airflow.tracking.queue import TrackerQueue

pytestmark = pytest.mark.stores("sqlite", "server", "postgres")

START = 1_700_000_000.0
END = JobStatus(JobState.SUCCEEDED, 0)

Refuse = Callable[[str, str], None]


def loss(step: int) -> Metric:
    return Metric("loss", 1.0, step, START + step % 10_000)


def steps(store: Store, ref: RunRef, metric: str = "loss") -> list[int]:
    return sorted(point.step for point in store.history(ref.run_id, metric))


@pytest.fixture
def refuse(uri: str, request: pytest.FixtureRequest) -> Iterator[Refuse]:
    """Lets the store's real database refuse a key in one of its tables."""
    if not uri.startswith("http"):
        database = uri
    else:
        servers = ("server", "server_on_postgres")
        database = next(server.database for server in map(request.getfixturevalue, servers) if server.uri == uri)
    engine = sqlalchemy.create_engine(database, connect_args={"timeout": 60} if database.startswith("sqlite") else {})
    tables: list[str] = []

    def create_trigger(table: str, key: str) -> None:
        why, name = "this key is refused", f"refuse_{table}"
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                when = f"WHEN NEW.key LIKE '{key}' BEGIN SELECT RAISE(ABORT, '{why}'); END"
                run(connection, f"CREATE TRIGGER {name} BEFORE INSERT ON {table} {when}")
            else:
                body = f"BEGIN IF NEW.key LIKE '{key}' THEN RAISE EXCEPTION '{why}'; END IF; RETURN NEW; END"
                run(connection, f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
                each = f"BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
                run(connection, f"CREATE TRIGGER {name} {each}")
        tables.append(table)

    def run(connection: sqlalchemy.Connection, statement: str) -> None:
        connection.exec_driver_sql(statement.replace("%", "%%") if engine.dialect.name == "postgresql" else statement)

    yield create_trigger
    with engine.begin() as connection:
        for table in tables:
            on_table = "" if engine.dialect.name == "sqlite" else f" ON {table}"
            run(connection, f"DROP TRIGGER refuse_{table}{on_table}")
            if on_table:
                run(connection, f"DROP FUNCTION refuse_{table}")
    engine.dispose()


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (Metric("loss", 1.0, 2**63, START), "not a 64-bit integer"),
        (Metric("loss", 1.0, -(2**63) - 1, START), "not a 64-bit integer"),
        (Metric("loss", 1.0, 500, 1e30), "not one in seconds since 1970"),
        (Metric("loss", 1.0, 500, -1.0), "not one in seconds since 1970"),
        (Metric("loss", 1.0, 500, float("inf")), "not one in seconds since 1970"),
    ],
    ids=["step-too-large", "step-too-small", "time-too-large", "time-before-1970", "time-infinite"],
)
async def test_a_point_that_does_not_fit_costs_itself_alone(
    tracker: MLflowTracker, store: Store, opened: RunRef, bad: Metric, why: str
) -> None:
    warnings: list[str] = []
    queue = TrackerQueue(tracker, opened, warn=warnings.append, interval=0.0)
    queue.put_metrics([*(loss(step) for step in range(400)), bad, *(loss(step) for step in range(600, 1000))], 77)
    end(queue, END)
    assert not await queue.drain(60)
    assert steps(store, opened) == [*range(400), *range(600, 1000)]
    assert tracker.mark(opened) == queue.acknowledged == 77
    assert store.run(opened.run_id).status == "FINISHED"
    assert len(warnings) == 1
    assert f"'loss' at step {bad.step} (the other 800 of 801 are recorded): " in warnings[0]
    assert why in warnings[0]


async def test_points_that_the_database_refuses_are_found_and_named_once(
    tracker: MLflowTracker, store: Store, opened: RunRef, refuse: Refuse
) -> None:
    refuse("metrics", "refused-%")
    warnings: list[str] = []
    queue = TrackerQueue(tracker, opened, warn=warnings.append, interval=0.0)
    for step in range(1500):
        points = [loss(step), *([Metric(f"refused-{step}", 1.0, step, START)] if step in (0, 700, 1499) else [])]
        queue.put_metrics(points, 10 * (step + 1))
    end(queue, END)
    assert not await queue.drain(60)
    assert steps(store, opened) == list(range(1500))
    assert tracker.mark(opened) == 15_000
    assert store.run(opened.run_id).status == "FINISHED"
    assert "'refused-0' at step 0" in warnings[0]
    assert "this key is refused" in warnings[0]
    assert warnings[1:] == [f"3 points of run {opened.run_id} were refused in all"]


async def test_refused_tags_and_parameters_cost_themselves_alone_and_the_plan_is_kept(
    tracker: MLflowTracker, store: Store, opened: RunRef, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse("params", "refused")
    monkeypatch.setattr(fields, "clean_tags", dict)  # so that MLflow gets a name that it refuses
    warnings: list[str] = []
    queue = TrackerQueue(tracker, opened, warn=warnings.append, interval=0.0)
    plan = {"version": 1, "root": {"_target_": "train:fit", **{f"p{n}": n for n in range(150)}, "refused": 1}}
    queue.put(calls.config(plan))
    queue.put(calls.tags({**{f"t{n}": "1" for n in range(150)}, "refu+sed": "1"}))
    end(queue, END)
    assert not await queue.drain(60)
    assert len(warnings) == 2, warnings
    run = store.run(opened.run_id)
    assert {f"p{n}" for n in range(150)} <= run.params.keys()
    assert {f"t{n}" for n in range(150)} <= run.tags.keys()
    assert run.status == "FINISHED"
    assert len(warnings) == 2
    assert "parameter 'refused' (the other 150 of 151 are recorded)" in warnings[0]
    assert "tag 'refu+sed' (the other 150 of 151 are recorded)" in warnings[1]
    assert b"refused" in (store.read(run, "nemo_airflow/plan.json") or b"")


def test_characters_that_a_database_refuses_are_escaped(tracker: MLflowTracker, store: Store, opened: RunRef) -> None:
    tracker.tag(opened, {"a": "x\0y", "b": "x\ud800y", "c": "naïve"})
    tags = store.run(opened.run_id).tags
    assert (tags["a"], tags["b"], tags["c"]) == (r"x\x00y", r"x\ud800y", "naïve")


@pytest.mark.parametrize("bad", [{0}, {511}, {1023}, {3, 4, 900}], ids=["first", "middle", "last", "three"])
def test_a_bad_item_costs_requests_of_the_order_of_the_logarithm(store: Store, opened: RunRef, bad: set[int]) -> None:
    requests: list[int] = []
    items = [loss(2**63 if n in bad else n) for n in range(1024)]

    def write(part: Sequence[Metric]) -> None:
        requests.append(len(part))
        if any(point.step >= 2**63 for point in part):
            raise TrackingError("refused")
        store.log(opened.run_id, metrics=part)

    refused = write_accepted(store, opened.run_id, items, write)
    assert len(refused) == len(bad)
    assert steps(store, opened) == sorted(set(range(1024)) - bad)
    assert len(requests) <= 1 + 20 * len(bad)


def test_bad_items_before_good_ones_do_not_cost_these(store: Store, opened: RunRef) -> None:
    written: list[int] = []

    def write(part: Sequence[int]) -> None:
        if min(part) < 300:
            raise TrackingError("refused")
        written.extend(part)

    refused = write_accepted(store, opened.run_id, range(1000), write)
    assert [refusal.item for refusal in refused] == list(range(300))
    assert sorted(written) == list(range(300, 1000))


def test_a_batch_that_is_refused_as_a_whole_is_said_once_with_bounded_requests(
    tracker: MLflowTracker, store: Store, opened: RunRef, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse("metrics", "refused")
    requests: list[int] = []
    log = type(store).log
    monkeypatch.setattr(type(store), "log", lambda own, *a, **k: (requests.append(1), log(own, *a, **k))[1])
    with pytest.raises(PartlyRefusedError, match=r"'refused' at step 0, .* and 795 more \(none is recorded\): "):
        tracker.metrics(opened, [Metric("refused", 1.0, step, START) for step in range(800)], 10)
    assert len(requests) < 80
    assert tracker.mark(opened) == 10


def test_a_run_that_is_deleted_is_refused_without_looking_for_a_bad_point(
    tracker: MLflowTracker, store: Store, opened: RunRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.delete_run(opened.run_id)
    requests: list[int] = []
    log = type(store).log
    monkeypatch.setattr(type(store), "log", lambda own, *a, **k: (requests.append(1), log(own, *a, **k))[1])
    with pytest.raises(TrackingError) as raised:
        tracker.metrics(opened, [loss(step) for step in range(500)], 10)
    assert not raised.value.transient
    assert not isinstance(raised.value, PartlyRefusedError)
    assert len(requests) == 2


def test_what_a_database_cannot_store_is_told_apart_from_a_database_that_is_away(database: str) -> None:
    """MLflow calls both internal errors."""
    from nemo_airflow.tracking.mlflow.store import Credentials, open_store

    tracker = MLflowTracker(tracking_uri=database)
    store = open_store(database, Credentials())
    run_id = store.create_run(store.experiment("Default") or "0", "internal", {}, 0).run_id
    points = [loss(0), loss(2**63), loss(1)]
    refused = write_accepted(store, run_id, points, lambda part: store.log(run_id, metrics=part))
    assert [refusal.item for refusal in refused] == [points[1]]
    assert steps(store, RunRef(tracker.tracking_uri or "", "0", run_id)) == [0, 1]


@pytest.mark.parametrize(
    ("code", "message", "transient"),
    [
        ("TEMPORARILY_UNAVAILABLE", "(sqlite3.OperationalError) database is locked", True),
        ("TEMPORARILY_UNAVAILABLE", "(psycopg2.OperationalError) connection refused", True),
        ("TEMPORARILY_UNAVAILABLE", "(sqlite3.OperationalError) database or disk is full", False),
        ("TEMPORARILY_UNAVAILABLE", "(sqlite3.OperationalError) attempt to write a readonly database", False),
        ("TEMPORARILY_UNAVAILABLE", "(sqlite3.OperationalError) no such table: runs", False),
        ("REQUEST_LIMIT_EXCEEDED", "slow down", True),
        ("INTERNAL_ERROR", "", True),
        ("PERMISSION_DENIED", "", False),
        ("INVALID_PARAMETER_VALUE", "", False),
        ("RESOURCE_DOES_NOT_EXIST", "", False),
        ("BAD_REQUEST", "(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.name", True),
        ("BAD_REQUEST", 'duplicate key value violates unique constraint "dataset_pk"', True),
        ("BAD_REQUEST", "(sqlite3.IntegrityError) NOT NULL constraint failed: datasets.name", False),
    ],
)
def test_errors_of_mlflow_are_transient_or_permanent(code: str, message: str, transient: bool) -> None:
    assert is_transient_answer(code, message) is transient


def test_a_full_disk_is_permanent(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as raised, Path("/dev/full").open("wb", buffering=0) as disk:
        disk.write(b"1")
    assert artifact_errors.is_permanent(raised.value)

    with sqlite3.connect(tmp_path / "full.db") as database:
        database.execute("CREATE TABLE t (text TEXT)")
        database.execute("PRAGMA max_page_count = 2")
        with pytest.raises(sqlite3.OperationalError) as full:
            database.execute("INSERT INTO t VALUES (?)", ["x" * 100_000])
    assert not is_transient_answer("TEMPORARILY_UNAVAILABLE", str(full.value))


def test_a_name_that_is_too_long_for_the_servers_disk_is_permanent_and_costs_itself_alone(
    server: Server, tmp_path: Path
) -> None:
    from tracking_cases import make_job, open_run

    from nemo_airflow.tracking.mlflow.store import Credentials, open_store

    ref = open_run(MLflowTracker(tracking_uri=server.uri), make_job("long-name"))
    store = open_store(server.uri, Credentials())
    run = store.run(ref.run_id)
    file = tmp_path / "file"
    file.write_bytes(b"1")

    def upload() -> None:
        for _ in range(5):  # a store does not retry: the server may cut a connection that it has just kept alive
            try:
                return store.upload(run, {"x" * 300: file, "short": file}, UploadWatch())
            except TrackingError as error:
                if not error.transient:
                    raise
        raise AssertionError("five times cut")

    with pytest.raises(PartlyRefusedError, match="name of the file is too long") as raised:
        upload()
    assert (raised.value.transient, raised.value.count) == (False, 1)
    assert store.read(run, "short") == b"1"
