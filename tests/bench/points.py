"""``make bench``: points of metrics into an MLflow server, ours beside MLflow's own ``log_batch``, in turns.

Ours go the way of a job's points: into the queue of its follower, in the records in which the runner writes them, and
with marks, so that a stream that is read again doubles none. ``log_batch`` gets as many at once as MLflow takes.
Usage: ``python tests/bench/points.py [POINTS] [ROUNDS] [DATABASE]``.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tracking"))

from mlflow import MlflowClient
from mlflow.entities import Metric as MlflowMetric
from tracking_cases import Server, make_job, open_run

from nemo_airflow.tracking.base import Metric
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.queue import TrackerQueue

START = 1_700_000_000.0
NAMES = ("loss", "accuracy", "lr", "grad_norm")
RECORD = 500
"""Points in one record of a runner that is given many."""

AT_ONCE = 1000
"""Points that MLflow takes in one ``log_batch``."""


def points(count: int) -> list[Metric]:
    """Returns points of several metrics, as a training loop logs them."""
    return [
        Metric(NAMES[n % len(NAMES)], 1.0 / (n + 1), n // len(NAMES), START + n // len(NAMES)) for n in range(count)
    ]


def ours(tracker: MLflowTracker, run_id: str, given: list[Metric]) -> float:
    """Returns the seconds from the first record to the answer for the last."""
    ref = open_run(tracker, make_job(f"bench-{run_id}"))

    async def follow() -> float:
        begun = time.perf_counter()
        queue = TrackerQueue(tracker, ref, warn=print, interval=0.0)
        for number in range(0, len(given), RECORD):
            queue.put_metrics(given[number : number + RECORD], 100 * (number + 1))
        complete = await queue.drain(600)
        took = time.perf_counter() - begun
        assert complete
        return took

    return asyncio.run(follow())


def mlflows(client: MlflowClient, experiment_id: str, given: list[Metric]) -> float:
    """Returns the seconds of MLflow's own client."""
    run = client.create_run(experiment_id)
    begun = time.perf_counter()
    theirs = [MlflowMetric(each.name, each.value, round(each.timestamp * 1000), each.step) for each in given]
    for number in range(0, len(theirs), AT_ONCE):
        client.log_batch(run.info.run_id, theirs[number : number + AT_ONCE])
    return time.perf_counter() - begun


def main() -> None:
    """Runs the benchmark and prints its table."""
    count, rounds, database = (*sys.argv[1:], "", "", "")[:3]
    given, turns = points(int(count or 20_000)), int(rounds or 5)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with tempfile.TemporaryDirectory(prefix="nemo-bench-") as folder:
        server = Server(Path(folder), database)
        try:
            server.start()
            tracker, client = MLflowTracker(tracking_uri=server.uri), MlflowClient(server.uri)
            experiment_id = client.create_experiment(f"bench-{secrets.token_hex(4)}")
            times: dict[str, list[float]] = {"ours": [], "log_batch": []}
            for turn in range(turns + 1):
                for kind in times if turn % 2 else reversed(times):
                    took = (
                        ours(tracker, secrets.token_hex(4), given)
                        if kind == "ours"
                        else mlflows(client, experiment_id, given)
                    )
                    print(f"turn {turn}: {kind} {took:.2f} s", file=sys.stderr, flush=True)
                    if turn:  # the first is to warm up
                        times[kind].append(took)
        finally:
            server.close()
    rates = {kind: len(given) / statistics.median(each) for kind, each in times.items()}
    ratio = statistics.median(theirs / own for own, theirs in zip(times["ours"], times["log_batch"], strict=True))
    print(
        "| points a second into an MLflow server | MLflow's `log_batch` | `nemo_airflow` | ratio |\n|---|--:|--:|--:|"
    )
    print(f"| {len(given):,} points | {rates['log_batch']:,.0f} | {rates['ours']:,.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
