"""When a trigger fires: an event that resumes a task waits until the deferral is noted, one that ends it does not."""

import asyncio
import json
import socket
import time

import pytest
from airflow.listeners import hookimpl
from airflow.sdk import DAG, Asset
from airflow.sdk.listener import get_listener_manager
from airflow.triggers.base import TaskSuccessEvent

from nemo_airflow import Config, NemoRunOperator
from nemo_airflow.executors import LocalExecutor
from nemo_airflow.job import JobHandle
from nemo_airflow.operators.ending import needs_no_worker
from nemo_airflow.triggers.run import NemoRunTrigger


@pytest.fixture
def fire(tmp_path, monkeypatch):
    """Returns a function that runs a trigger of a job that has ended: its event, and for how long it was held."""

    def fired(trigger_id=7, end=None, **arguments):
        folder = tmp_path / "job"
        folder.mkdir()
        claim = {"pid": 1, "start_ticks": 1, "boot_id": "an earlier one", "host": socket.gethostname(), "ts": 1.0}
        end = end or {"state": "succeeded", "result": {"loss": 0.5}}
        (folder / "claim").write_text(json.dumps(claim))
        (folder / "log").write_bytes(
            b"\x1e" + json.dumps({"v": 1, "type": "end", "ts": 1.0, "at": 0, **end}).encode() + b"\n"
        )
        (folder / "end.json").write_text(json.dumps(end))
        executor = LocalExecutor(root=str(tmp_path)).to_json()
        trigger = NemoRunTrigger(executor, JobHandle("job", "local", "1", "", 1.0).to_json(), **arguments)
        trigger.trigger_id, trigger.task_instance = trigger_id, None
        held = []
        monkeypatch.setattr(trigger, "_hold", lambda seconds, hold=trigger._hold: held.append(hold(seconds)) or 0)

        async def first_event():
            return await anext(aiter(trigger.run()))

        return asyncio.run(first_event()), sum(held)

    return fired


def test_event_that_resumes_the_task_is_held_until_ten_seconds_after_the_deferral(fire):
    event, held = fire(deferred_at=time.time())
    assert event.payload["outcome"]["status"]["state"] == "succeeded"
    assert 5 < held <= 10


def test_event_of_a_trigger_that_a_second_triggerer_runs_later_is_not_held(fire):
    assert fire(deferred_at=time.time() - 60)[1] == 0


def test_clock_of_the_worker_that_is_ahead_holds_no_event_for_longer(fire):
    assert 5 < fire(deferred_at=time.time() + 3600)[1] <= 10


def test_event_is_not_held_inline(fire):
    assert fire(trigger_id=None, deferred_at=time.time(), may_end_task=True)[1] == 0


@pytest.mark.parametrize(
    ("end", "pushes_result"),
    [({"state": "succeeded"}, True), ({"state": "succeeded", "result": {"loss": 0.5}}, False)],
    ids=["no result", "result that is not pushed"],
)
def test_task_that_needs_no_worker_is_ended_at_once(fire, end, pushes_result):
    event, held = fire(end=end, deferred_at=time.time(), may_end_task=True, pushes_result=pushes_result)
    assert isinstance(event, TaskSuccessEvent)
    assert (event.xcoms, held) == (None, 0)


@pytest.mark.parametrize(
    "end",
    [{"state": "failed", "error": {"type": "E", "message": "m"}}, {"state": "succeeded", "result": {"loss": 0.5}}],
    ids=["failed", "result"],
)
def test_task_that_failed_or_has_a_result_to_store_is_resumed_in_a_worker(fire, end):
    event, held = fire(end=end, deferred_at=time.time(), may_end_task=True, pushes_result=True)
    assert not isinstance(event, TaskSuccessEvent)
    assert held > 5


def test_arguments_come_back_from_what_is_stored(tmp_path):
    trigger = NemoRunTrigger(
        LocalExecutor().to_json(), JobHandle("job", "local", "1", "", 1.0).to_json(),
        logged=(17, 3), deferred_at=5.0, may_end_task=True, pushes_result=True,
    )  # fmt: skip
    stored = json.loads(json.dumps(trigger.serialize()[1]))
    assert NemoRunTrigger(**stored).serialize()[1] == stored
    assert (stored["logged"], stored["deferred_at"]) == ([17, 3], 5.0)


class WithPostExecute(NemoRunOperator):
    def post_execute(self, context, result=None):
        """Does something in the worker."""


NEEDS_A_WORKER = {
    "outlets": {"outlets": [Asset("x")]},
    "success callback": {"on_success_callback": print},
    "post_execute": {"post_execute": print},
    "several outputs": {"multiple_outputs": True},
    "name of the map index": {"map_index_template": "{{ x }}"},
}


@pytest.mark.parametrize("arguments", NEEDS_A_WORKER.values(), ids=NEEDS_A_WORKER)
def test_task_with_something_to_do_in_a_worker_is_not_ended_by_the_trigger(arguments):
    with DAG("d", schedule=None):
        assert not needs_no_worker(NemoRunOperator(task_id="t", config=Config(print), **arguments))
        assert needs_no_worker(NemoRunOperator(task_id="other", config=Config(print)))


def test_operator_that_does_something_after_the_job_is_not_ended_by_the_trigger():
    with DAG("d", schedule=None):
        assert not needs_no_worker(WithPostExecute(task_id="t", config=Config(print)))


def test_task_over_whose_result_others_are_mapped_is_not_ended_by_the_trigger():
    with DAG("d", schedule=None):
        first = NemoRunOperator(task_id="first", config=Config(print))
        NemoRunOperator.partial(task_id="mapped", config=Config(print)).expand(env=first.output)
        assert not needs_no_worker(first)


class Listener:
    """Hears of tasks that end, as OpenLineage's does."""

    @hookimpl
    def on_task_instance_success(self, previous_state, task_instance):
        """Is told by the worker alone."""


def test_listener_is_told_of_the_end_by_a_worker():
    with DAG("d", schedule=None):
        task = NemoRunOperator(task_id="t", config=Config(print))
    get_listener_manager().add_listener(Listener())
    try:
        assert not needs_no_worker(task)
    finally:
        get_listener_manager().clear()
