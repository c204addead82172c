"""Runs a recorded run on from its newest checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from nemo_airflow.cli.follow import follow_chain
from nemo_airflow.cli.reap import load_executor
from nemo_airflow.cli.terminal import keep_output_clean, say
from nemo_airflow.launch.records import Records
from nemo_airflow.launch.resuming import submit_next
from nemo_airflow.reproduction.restoring import Source


def run(
    name: str,
    overrides: Sequence[str],
    *,
    on: str,
    max_chain: int,
    repositories: Sequence[str],
    tracking_uri: str | None,
    conn_id: str | None,
) -> int:
    """Submits the next attempt of a run, and follows it to its end.

    Args:
        name: The run.
        overrides: Changes, with which it is a new run.
        on: Where it is to run; where it ran when empty.
        max_chain: How many attempts may follow each other.
        repositories: Folders in repositories with its code, besides the current folder.
        tracking_uri: MLflow's address, or None.
        conn_id: An Airflow connection with MLflow's address and login, or None.

    Returns:
        0 if it has succeeded, 1 if not, 130 if it was interrupted.
    """
    keep_output_clean()
    source = Source(tracking_uri, conn_id, (*repositories, "."), trusts_overrides=True)
    where = load_executor(on) if on else None
    records = Records()
    record = submit_next(name, source, records, on=where, overrides=overrides, say=say)
    say(f"submitted job {record.key} to {record.job.kind} ({record.job.id})")
    return follow_chain(
        records, record, max_chain, lambda last: submit_next(last.key, source, records, on=where, overrides=(), say=say)
    )
