"""Runs a recorded run on from its newest checkpoint, without a DAG."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.executors.base import Executor
from nemo_airflow.follow import Outcome
from nemo_airflow.job import JobState
from nemo_airflow.launch.following import Following
from nemo_airflow.launch.records import Launched, Records
from nemo_airflow.launch.reproducing import options_of
from nemo_airflow.launch.submission import Launch
from nemo_airflow.registered import find_executor
from nemo_airflow.reproduction.restoring import Source, restore
from nemo_airflow.tracking.base import ATTEMPTS, INPUT_RUN, RESUMES


def resume(
    run: str,
    *,
    on: Executor | str | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    repositories: Sequence[str | os.PathLike[str]] = (".",),
    tracking_uri: str | None = None,
    conn_id: str | None = None,
    on_line: Callable[[str], None] = print,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Runs on what a recorded run has left undone, from its newest checkpoint, and follows the job to its end. Blocks.

    The run in MLflow goes on. With overrides it is a new one, which names the other.

    Args:
        run: The run: its id in MLflow, or its job's key or the beginning of that.
        on: Where to run it instead of where it ran: an executor, or a text as for ``nemo-airflow run --executor``.
        overrides: Values by dotted path, or texts as ``"steps=200"``.
        repositories: Folders in repositories with the run's code, for a package that no store has any more.
        tracking_uri: MLflow's address; found as for a tracker when None.
        conn_id: An Airflow connection with the address and the login.
        on_line: Called with each line that the job writes.
        say: Called with what people should know, in one line.

    Returns:
        How the job ended.

    Raises:
        NemoAirflowError: The run is not there, is done, or cannot be restored; nothing was submitted. Or its job cannot
            be followed.
    """
    source = Source(tracking_uri, conn_id, tuple(os.fspath(folder) for folder in repositories), trusts_overrides=True)
    where = find_executor(on) if isinstance(on, str) else on
    records = Records()
    record = submit_next(run, source, records, on=where, overrides=overrides, say=say)
    return Following(records, record, on_line, say).run()


def submit_next(
    text: str,
    source: Source,
    records: Records,
    *,
    on: Executor | None,
    overrides: Mapping[str, Any] | Sequence[str],
    say: Callable[[str], None],
) -> Launched:
    """Submits the next attempt of a run, and returns its record; see :func:`resume`.

    Raises:
        NemoAirflowError: The run is not there, is done, or cannot be restored.
    """
    run = source.find(text)
    if run.state == JobState.SUCCEEDED and not overrides:
        raise TrackingError(
            f"run {run.run_id} is done: give what is to be different, as in 'nemo-airflow resume {text} steps=200', or "
            "run it again with 'nemo-airflow reproduce'"
        )
    restored = restore(run, source, on=on, overrides=overrides)
    tags = {RESUMES: run.run_id, f"{INPUT_RUN}{run.run_id}": "checkpoint"} if overrides else {}
    options = options_of(restored, source, tags, f"Goes on from the newest checkpoint of run {run.run_id}.")
    keys = tuple(run.tags.get(ATTEMPTS, run.key).split())
    options = dataclasses.replace(options, earlier=keys, run_key="" if overrides else run.key)
    launch = Launch(restored.plan, restored.executor, options, say)
    return launch.submit(records, launch.package())
