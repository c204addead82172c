"""``make bench``: a page of runs out of 10,000 in an MLflow server on PostgreSQL, ours beside MLflow's own client.

The runs have 200 parameters and 50 metrics each and are written into the database itself. Both sides ask for the same
page over HTTP, in turns; theirs must be told the experiments, which ours looks up. Medians of several.
Usage: ``python tests/bench/runs.py [RUNS] [ROUNDS]``; needs the lab's PostgreSQL (``make lab``).
"""

from __future__ import annotations

import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tracking"))

import psycopg2
from lab.backends import Lab
from mlflow import MlflowClient
from tracking_cases import Server

from nemo_airflow.tracking.mlflow.jobs import JobRuns
from nemo_airflow.tracking.mlflow.queries import Comparison, RunQuery
from nemo_airflow.tracking.mlflow.store import jobs_filter

PARAMS, METRICS, EXPERIMENTS = 200, 50, 10
PAGE = 20
"""What ``nemo-airflow runs`` shows at once."""


QUERIES = {
    "the newest": RunQuery(),
    "of a DAG that failed": RunQuery(dag="dag_3", state="failed"),
    "with a config value": RunQuery(config={"layer.7.width": "7"}),
    "sorted by a metric": RunQuery(metrics=[Comparison("m.1", "<", 0.5)], sort="m.1"),
}

FILL = """
INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage)
  SELECT 1000 + e, 'bench ' || e, '/tmp', 'active' FROM generate_series(0, %(experiments)s - 1) e;
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time,
                  source_version, lifecycle_stage, artifact_uri, experiment_id)
  SELECT md5(r::text), 'run ' || r, 'JOB', '', '', 'u', 'FINISHED', 1700000000000 + r * 1000, 1700000000500 + r * 1000,
         '', 'active', '/tmp', 1000 + r %% %(experiments)s FROM generate_series(1, %(runs)s) r;
INSERT INTO params (key, value, run_uuid)
  SELECT 'layer.' || p || '.width', ((r * p) %% 50)::text, md5(r::text)
  FROM generate_series(1, %(runs)s) r, generate_series(1, %(params)s) p;
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
  SELECT 'm.' || m, ((r * 7919 + m) %% 10007) / 10007.0, 1700000000000, 10, false, md5(r::text)
  FROM generate_series(1, %(runs)s) r, generate_series(1, %(metrics)s) m;
INSERT INTO tags (key, value, run_uuid)
  SELECT t.key, t.value, md5(r::text) FROM generate_series(1, %(runs)s) r, LATERAL (VALUES
    ('nemo_airflow.key', 'key-' || r), ('nemo_airflow.plan_digest', md5('plan' || r)),
    ('nemo_airflow.backend', 'slurm'), ('airflow.dag_id', 'dag_' || r %% 10),
    ('airflow.task_id', 'train'), ('mlflow.user', 'ann'),
    ('nemo_airflow.state', CASE r %% 7 WHEN 0 THEN 'failed' ELSE 'succeeded' END)) t(key, value);
ANALYZE;
"""


def postgres() -> str:
    """Returns the address of the PostgreSQL to use: that of the lab, unless the environment names another."""
    return os.environ.get("NEMO_TEST_POSTGRES") or Lab().postgres


def main() -> None:
    """Runs the benchmark and prints its table."""
    count, rounds = (*map(int, sys.argv[1:]), *(10_000, 7)[len(sys.argv) - 1 :])
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    admin = postgres()
    name = f"bench_runs_{secrets.token_hex(4)}"
    database = urlsplit(admin)._replace(scheme="postgresql+psycopg2", path=f"/{name}").geturl()
    execute(admin, f"CREATE DATABASE {name}")
    try:
        with tempfile.TemporaryDirectory(prefix="nemo-bench-") as folder:
            server = Server(Path(folder), database)
            try:
                server.start()
                numbers = {"runs": count, "params": PARAMS, "metrics": METRICS, "experiments": EXPERIMENTS}
                execute(database.replace("+psycopg2", ""), FILL, numbers)
                print(f"| of {count:,} runs, a page of {PAGE} | MLflow's client, s | `nemo_airflow.runs`, s | ratio |")
                print("|---|--:|--:|--:|")
                for what, query in QUERIES.items():
                    measure(what, query, server.uri, rounds)
            finally:
                server.close()
    finally:
        execute(admin, f"DROP DATABASE {name}")


def execute(address: str, script: str, values: dict[str, int] | None = None) -> None:
    """Runs a script of SQL."""
    connection = psycopg2.connect(address)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(script, values)
    finally:
        connection.close()


def measure(what: str, query: RunQuery, uri: str, rounds: int) -> None:
    """Asks for one page by both, in turns, and prints the row."""
    client, runs = MlflowClient(uri), JobRuns(uri)
    experiments = [str(1000 + number) for number in range(EXPERIMENTS)]
    contenders: dict[str, Callable[[], int]] = {
        "theirs": lambda: len(
            client.search_runs(
                experiments,
                jobs_filter(query.to_filter()),
                max_results=PAGE,
                order_by=query.to_order(),
            )
        ),
        "ours": lambda: len(runs.search(query, PAGE)[0]),
    }
    times: dict[str, list[float]] = {who: [] for who in contenders}
    for turn in range(rounds + 1):
        counts = {}
        for who, ask in contenders.items():
            begun = time.perf_counter()
            counts[who] = ask()
            if turn:  # the first is to warm up
                times[who].append(time.perf_counter() - begun)
        if len(set(counts.values())) != 1 or not counts["ours"]:
            raise SystemExit(f"{what}: different pages: {counts}")
    theirs, ours = (statistics.median(times[who]) for who in ("theirs", "ours"))
    print(f"| {what} | {theirs:.2f} | {ours:.2f} | {ours / theirs:.2f} |", flush=True)


if __name__ == "__main__":
    main()
