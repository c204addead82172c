"""``make bench``: what the page that compares 50 runs asks of the server: of 10,000 runs in an MLflow on PostgreSQL.

The runs are those of ``runs.py``; the 50 have a config, an environment, what they asked for, and 1,000 points of a
metric as well, as jobs leave them. The first of each is of runs that were not looked at lately.
Usage: ``python tests/bench/pages_compare.py [RUNS] [ROUNDS]``; needs the lab's PostgreSQL (``make lab``).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tracking"))

from runs import EXPERIMENTS, FILL, METRICS, PARAMS, execute, postgres
from tracking_cases import Server

from nemo_airflow.plugin.api import compare

COMPARED, POINTS = 50, 1000
SECTIONS = ("config", "code", "environment", "inputs", "asked")

GIVE = """
UPDATE runs SET artifact_uri = 'mlflow-artifacts:/bench/' || run_uuid WHERE run_uuid = ANY(%(compared)s);
INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
  SELECT 'm.1', random(), 1700000000000 + s * 1000, s, false, r
  FROM unnest(%(compared)s) r, generate_series(1, %(points)s) s;
ANALYZE;
"""


class All:
    """The rights of a user who may see all."""

    def may_read(self, dag_id: str) -> bool:
        """See :class:`nemo_airflow.plugin.api.rights.Rights`."""
        return True

    def need(self, allowed: bool) -> None:
        """See there."""


def main() -> None:
    """Runs the benchmark and prints its table."""
    count, rounds = (*map(int, sys.argv[1:]), *(10_000, 20)[len(sys.argv) - 1 :])
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    admin = postgres()
    name = f"bench_compare_{secrets.token_hex(4)}"
    database = urlsplit(admin)._replace(scheme="postgresql+psycopg2", path=f"/{name}").geturl()
    execute(admin, f"CREATE DATABASE {name}")
    try:
        with tempfile.TemporaryDirectory(prefix="nemo-bench-") as folder:
            server = Server(Path(folder), database)
            try:
                server.start()
                fill(database.replace("+psycopg2", ""), count, Path(folder) / "artifacts" / "bench")
                os.environ["MLFLOW_TRACKING_URI"] = server.uri
                measure(compared(count), rounds)
            finally:
                server.close()
    finally:
        execute(admin, f"DROP DATABASE {name} WITH (FORCE)")


def compared(count: int) -> list[str]:
    """Returns the ids of the runs, which are spread over all."""
    return [hashlib.md5(str(1 + n * count // COMPARED).encode()).hexdigest() for n in range(COMPARED)]


def fill(address: str, count: int, artifacts: Path) -> None:
    """Writes the runs, and the files of those that are compared."""
    numbers = {"runs": count, "params": PARAMS, "metrics": METRICS, "experiments": EXPERIMENTS}
    execute(address, FILL, numbers)
    given: dict[str, Any] = {"compared": compared(count), "points": POINTS}
    execute(address, GIVE, given)
    for number, run_id in enumerate(compared(count)):
        folder = artifacts / run_id / "nemo_airflow"
        folder.mkdir(parents=True)
        values = {f"width_{p}": (number * p) % 50 for p in range(PARAMS)}
        files = {
            "plan.json": {"version": 1, "root": {"_target_": "train:fit", **values}},
            "environment.json": {"python": "3.11", "packages": {f"p{p}": str(number % (p + 1)) for p in range(200)}},
            "job.json": {"executor": {"kind": "slurm", "nodes": number}, "env": {"A": "1"}},
        }
        for file, content in files.items():
            (folder / file).write_text(json.dumps(content))


def measure(run_ids: list[str], rounds: int) -> None:
    """Asks for each part of the page, and prints the table."""
    rights: Any = All()
    parts: dict[str, Callable[[], object]] = {"the page": lambda: compare.compare_runs(rights, run_ids)}
    for section in SECTIONS:
        made: Any = functools.partial(compare.compare_section, rights, run_ids, limit=500)
        parts[section] = functools.partial(made, section)
    parts[f"a curve of {POINTS:,} points"] = lambda: compare.compare_points(rights, run_ids, "m.1")
    print(f"| compare of {COMPARED}, {PARAMS} parameters, {METRICS} metrics | first, s | median, s | p95, s |")
    print("|---|--:|--:|--:|")
    for what, ask in parts.items():
        compare.kept_runs.forget()
        times = []
        for _ in range(rounds + 1):
            begun = time.perf_counter()
            answer = ask()
            times.append(time.perf_counter() - begun)
        assert COMPARED in (len(getattr(answer, "runs", ())), len(getattr(answer, "curves", ())))
        first, *others = times
        p95 = statistics.quantiles(others, n=20)[-1]
        print(f"| {what} | {first:.2f} | {statistics.median(others):.2f} | {p95:.2f} |", flush=True)


if __name__ == "__main__":
    main()
