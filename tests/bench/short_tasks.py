"""``make bench``: short tasks through a real Airflow, as ``@task`` and as jobs; or many, to see that none fails.

LocalExecutor with four workers and a sqlite database. Airflow times a run of a DAG, from its start to its end, and
each kind takes its turn in each round.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import statistics
import sys
import tempfile
from pathlib import Path

from nemo_airflow.cli.airflow_server import AirflowServer

HERE = Path(__file__).parent
LIMIT = 3600.0

KINDS = {
    "plain": "`@task`",
    "untracked": "`@task.nemo`, no tracker",
    "tracked": "`@task.nemo`, MLflow on sqlite, as it is unless set",
    "deferred": "`@task.nemo`, no tracker, `defer_after=0`",
    "reused": "`@task.nemo(reuse=True)`, MLflow on sqlite: none submits a job",
}


def main() -> int:
    """Runs the benchmark and prints its table; with ``--stress``, runs one kind once and counts the states."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=24, help="mapped tasks of a run")
    parser.add_argument("--repeat", type=int, default=3, help="rounds, after one to warm up")
    parser.add_argument("--kinds", default=",".join(KINDS), help="what to compare, with commas between")
    parser.add_argument("--stress", choices=KINDS, help="run this kind once, without retries, and fail if a task does")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nemo-bench-", ignore_cleanup_errors=True) as home:
        server = AirflowServer(Path(home), HERE / "dags", env={"BENCH_TASKS": str(options.tasks)}, open_to_all=True)
        try:
            server.start()
            if options.stress:
                return stress(server, options.stress)
            compare(server, options.kinds.split(","), options.repeat)
        finally:
            server.stop()
    return 0


def compare(server: AirflowServer, kinds: list[str], repeat: int) -> None:
    """Prints the seconds of a run of each kind, and their ratio to those of the first."""
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(repeat + 1):
        for kind in kinds:
            took, states = run(server, kind)
            print(f"turn {turn}: {kind} {took:.1f} s {dict(states)}", file=sys.stderr, flush=True)
            if turn:
                seconds[kind].append(took)
    first = statistics.median(seconds[kinds[0]])
    print("| tasks that do nothing | seconds | ratio |\n|---|--:|--:|")
    for kind in kinds:
        median = statistics.median(seconds[kind])
        print(f"| {KINDS[kind]} | {median:.1f} | {median / first:.2f} |")


def stress(server: AirflowServer, kind: str) -> int:
    """Returns 1 if a task failed."""
    took, states = run(server, kind)
    print(f"{kind}: {dict(states)} in {took:.0f} s")
    return int(set(states) != {"success"})


def run(server: AirflowServer, kind: str) -> tuple[float, collections.Counter[str]]:
    """Runs a DAG; returns for how long it ran, and how many of its tasks ended in which state."""
    run_id = server.trigger(kind)
    server.wait(lambda: server.run(kind, run_id)["state"] in ("success", "failed"), f"the end of {kind}", LIMIT)
    found = server.run(kind, run_id)
    begun, ended = (datetime.datetime.fromisoformat(found[name]) for name in ("start_date", "end_date"))
    states: collections.Counter[str] = collections.Counter()
    path = f"/dags/{kind}/dagRuns/{run_id}/taskInstances"
    while instances := server.call("GET", f"{path}?limit=100&offset={states.total()}")["task_instances"]:
        states.update(str(instance["state"]) for instance in instances)
    return (ended - begun).total_seconds(), states


if __name__ == "__main__":
    sys.exit(main())
