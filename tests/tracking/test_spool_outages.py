"""A server that is away, or dies at any step of a job or of a delivery, costs no record and doubles none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from spool_cases import POINTS, Case, assert_parent_recorded, follow, waiting
from tracking_cases import Server, wait_until

from nemo_airflow.cli import main
from nemo_airflow.tracking import delivery, outbox
from nemo_airflow.tracking.base import Metric, RunRef
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.run import RunSink
from nemo_airflow.tracking.spool import Spool


@pytest.fixture(scope="module")
def one_to_kill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow-to-kill"))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.lab)])
def any_to_kill(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "sqlite":
        yield request.getfixturevalue("one_to_kill")
        return
    database = request.getfixturevalue("lab_postgres")
    server = Server(tmp_path_factory.mktemp("mlflow-on-postgres-to-kill"), database)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_airflow.tracking.run.LIMIT", 10)
    monkeypatch.setattr(outbox, "BATCH", 7)
    monkeypatch.setattr("nemo_airflow.tracking.queue._WAIT_FOR_ANSWER", 1.0)


async def follow_all(cases: list[Case], tracker: MLflowTracker, folder: Path, warnings: list[str]) -> list[bool]:
    return await asyncio.gather(*(follow(case.run(tracker), case, folder, warnings.append) for case in cases))


def test_a_server_that_is_away_over_the_life_of_20_jobs_costs_nothing(
    any_to_kill: Server, tmp_path: Path, warnings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    any_to_kill.kill()
    cases = [Case(number, "away-throughout") for number in range(20)]
    tracker = MLflowTracker(tracking_uri=any_to_kill.uri)
    assert all(asyncio.run(follow_all(cases, tracker, tmp_path, warnings)))
    assert waiting() == [case.key for case in cases]
    assert len(warnings) == len(cases)
    assert all("'nemo-airflow sync', delivers it" in line for line in warnings)
    assert not any("kept except" in line for line in warnings)

    assert main(["sync"]) == 1
    assert waiting() == [case.key for case in cases]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(cases)
    assert all(f"{any_to_kill.uri} cannot be reached" in line for line in said)

    any_to_kill.start()
    assert main(["sync"]) == 0
    assert waiting() == []
    assert f"20 delivered, 0 waiting in {Spool().folder}" in capsys.readouterr().out
    client = MlflowClient(any_to_kill.uri)
    for case in cases:
        case.assert_recorded(client)
    assert_parent_recorded(client, cases)
    assert main(["sync"]) == 0


def test_a_server_that_dies_at_any_step_of_a_job_costs_nothing(
    one_to_kill: Server, tmp_path: Path, warnings: list[str]
) -> None:
    if one_to_kill.process is None:
        one_to_kill.start()
    cases = [Case(number, "dies-at-each-step") for number in range(4)]
    tracker = MLflowTracker(tracking_uri=one_to_kill.uri)
    runs = [case.run(tracker) if case is cases[3] else case.run(tracker).open() for case in cases]
    sent: list[RunSink] = []

    def wait_for_death(sink: RunSink) -> None:
        wait_until(lambda: one_to_kill.process is None, 60)

    def send_all_before_it(sink: RunSink) -> None:
        wait_until(lambda: not sink._outbox.left, 60)
        sent.append(sink)
        wait_for_death(sink)

    def kill_when_two_have_sent() -> None:
        wait_until(lambda: len(sent) == 2, 60)
        one_to_kill.kill()

    async def follow_each() -> list[bool]:
        killing = asyncio.create_task(asyncio.to_thread(kill_when_two_have_sent))
        done = await asyncio.gather(
            *(
                follow(run, case, tmp_path, warnings.append, pause_at=at, pause=pause)
                for run, case, (at, pause) in zip(
                    runs,
                    cases,
                    [
                        (0, wait_for_death),  # after its run is open
                        (POINTS // 2, send_all_before_it),
                        (len(cases[2].stream()) - 1, send_all_before_it),  # before the end
                        (0, wait_for_death),  # before its run is open
                    ],
                    strict=True,
                )
            )
        )
        await killing
        return done

    assert all(asyncio.run(follow_each())), "\n".join(warnings)
    assert waiting() == [case.key for case in cases]
    one_to_kill.start()
    assert main(["sync"]) == 0
    client = MlflowClient(one_to_kill.uri)
    for case in cases:
        case.assert_recorded(client)
    assert_parent_recorded(client, cases)


def test_a_server_that_dies_during_a_delivery_costs_nothing(
    one_to_kill: Server, tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one_to_kill.kill()
    cases = [Case(number, "dies-during-delivery") for number in range(2)]
    tracker = MLflowTracker(tracking_uri=one_to_kill.uri)
    assert all(asyncio.run(follow_all(cases, tracker, tmp_path, warnings)))
    one_to_kill.start()
    metrics, calls = MLflowTracker.metrics, []

    def die_after_the_third(self: MLflowTracker, ref: RunRef, points: list[Metric], mark: int) -> None:
        metrics(self, ref, points, mark)
        calls.append(mark)
        if len(calls) == 3:
            one_to_kill.kill()

    with monkeypatch.context() as patch:
        patch.setattr(MLflowTracker, "metrics", die_after_the_third)
        reports = list(delivery.deliver_all(Spool()))
    assert [report.problem for report in reports] == [reports[0].problem] * 2
    assert "cannot be reached" in reports[0].problem
    assert 3 <= len(calls) < POINTS
    one_to_kill.start()
    assert [report.problem for report in delivery.deliver_all(Spool())] == ["", ""]
    for case in cases:
        case.assert_recorded(MlflowClient(one_to_kill.uri))
    assert_parent_recorded(MlflowClient(one_to_kill.uri), cases)
