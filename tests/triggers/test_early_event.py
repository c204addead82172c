"""An event does not come before the scheduler has noted the deferral that it answers."""

import asyncio
import json
import socket
import time

import pytest

from nemo_airflow.executors import LocalExecutor
from nemo_airflow.job import JobHandle
from nemo_airflow.triggers.run import NemoRunTrigger


@pytest.mark.parametrize(("trigger_id", "least"), [(7, 10.0), (None, 0.0)], ids=["in-a-triggerer", "inline"])
def test_event_of_a_job_that_has_ended_already_is_held(tmp_path, trigger_id, least):
    folder = tmp_path / "job"
    folder.mkdir()
    claim = {"pid": 1, "start_ticks": 1, "boot_id": "an earlier one", "host": socket.gethostname(), "ts": 1.0}
    (folder / "claim").write_text(json.dumps(claim))
    (folder / "log").write_bytes(b'\x1e{"v": 1, "type": "end", "ts": 1.0, "at": 0, "state": "succeeded"}\n')
    (folder / "end.json").write_bytes(b'{"state":"succeeded"}')
    handle = JobHandle("job", "local", "1", "", 1.0)
    trigger = NemoRunTrigger(LocalExecutor(root=str(tmp_path)).to_json(), handle.to_json())
    trigger.trigger_id, trigger.task_instance = trigger_id, None

    async def first_event():
        return await anext(aiter(trigger.run()))

    begun = time.monotonic()
    event = asyncio.run(first_event())
    assert time.monotonic() - begun >= least
    assert event.payload["outcome"]["status"]["state"] == "succeeded"
