"""What waits for a run is data: it is the same after a way through JSON, and it stays small."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from tracking_cases import PLAN

from nemo_airflow.job import Job, JobHandle, JobState, JobStatus
from nemo_airflow.tracking import calls
from nemo_airflow.tracking.base import RunRef
from nemo_airflow.tracking.calls import Call
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.mlflow.store import Store
from nemo_airflow.tracking.outbox import Outbox


def test_calls_that_went_through_json_record_the_same(
    tracker: MLflowTracker, store: Store, opened: RunRef, tmp_path: Path
) -> None:
    (tmp_path / "log.txt").write_text("a line\n")
    made = [
        calls.started(JobHandle("k", "local", "1"), "the script"),
        calls.config({"version": 1, "root": {**PLAN["root"], "resolved": 1}}),  # type: ignore[dict-item]
        calls.environment({"python": "3.11", "packages": {"numpy": "2.0"}}),
        calls.tags({"a": "b"}),
        calls.log(Job("k", "train", PLAN), tmp_path / "log.txt"),
        calls.ended(JobStatus(JobState.FAILED, 3), "ValueError: no", time.time()),
        calls.close_parent(succeeded=False, at=time.time()),
    ]
    again = [Call.from_json(json.loads(json.dumps(call.to_json()))) for call in made]
    assert again == made
    for call in again:
        if texts := call.make(tracker, opened):
            calls.documents(texts, call).make(tracker, opened)
    run = store.run(opened.run_id)
    assert run.status == store.run(opened.parent_id).status == "FAILED"
    assert run.params["resolved"] == "1"
    assert {"nemo_airflow.job_id": "1", "nemo_airflow.python": "3.11", "a": "b"}.items() <= run.tags.items()
    for name, text in {
        "nemo_airflow/job_script.txt": b"the script",
        "nemo_airflow/requirements.txt": b"numpy==2.0\n",
        "nemo_airflow/traceback.txt": b"ValueError: no",
        "nemo_airflow/log.txt": b"a line\n",
    }.items():
        assert store.read(run, name) == text


def test_tags_that_wait_are_one_call_and_one_that_comes_during_it_is_not_lost() -> None:
    outbox = Outbox()
    seen: list[dict[str, str]] = []

    class Collecting(MLflowTracker):
        def tag(self, ref: RunRef, tags: Mapping[str, str]) -> None:
            if not seen:  # meanwhile, on the event loop
                outbox.put(calls.tags({"late": "1"}))
            seen.append(dict(tags))

    for step in range(1000):
        outbox.put(calls.tags({"step": str(step), f"is{step % 2}": "1"}))
    assert outbox.records_left == ["tags"]
    outbox.send_records(Collecting(), RunRef("u", "1", "r"))
    assert outbox.records_left == []
    merged = {"step": "999", "is0": "1", "is1": "1"}
    assert seen == [merged, {**merged, "late": "1"}]
