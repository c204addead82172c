"""``make bench``: what the pages of Airflow's web UI ask of the server, and how soon they are seen.

10,000 runs of 200 parameters and 50 metrics are in an MLflow server on PostgreSQL, and the records of their jobs in an
Airflow database on PostgreSQL. Each case calls a route of the API in this process, many times and with nothing kept in
between; where MLflow's own client, or its page, can ask for the same, it does so in turns, over the same HTTP. Our
pages are looked at in Chromium, in a real Airflow whose own files the browser has already.
Usage: ``python tests/bench/pages.py [RUNS] [ROUNDS]``; needs the lab's PostgreSQL (``make lab``).

A case is a function with the decorator ``case``; it returns what ours is and what theirs is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tracking")]

import httpx  # noqa: E402
from runs import EXPERIMENTS, FILL, METRICS, PARAMS, execute, postgres  # noqa: E402
from tracking_cases import Server  # noqa: E402

PAGE = 20
"""Jobs that the list asks for at once."""

POINTS = 200
"""Points of the metric whose lines are drawn."""

FILL_POINTS = """
INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
  SELECT 'm.1', ((r * 31 + s) %% 997) / 997.0, 1700000000000 + s, s, false, md5(r::text)
  FROM generate_series(1, %(runs)s) r, generate_series(1, %(points)s) s;
ANALYZE;
"""

LONG = 1_000_000
"""Points of the longest line, of the metric ``long`` of the newest run."""

FILL_LONG = """
INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
  SELECT 'long', sin(s / 5000.0) + (s * 31 %% 997) / 9970.0, 1700000000000 + s * 10, s, false, md5(%(runs)s::text)
  FROM generate_series(1, %(points)s) s;
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
  SELECT 'long', 0.0, 1700000000000 + %(points)s * 10, %(points)s, false, md5(%(runs)s::text);
ANALYZE;
"""

FILL_AIRFLOW = """
INSERT INTO dag_run (id, dag_id, run_id, run_type, state, run_after, queued_at, clear_number)
  SELECT r, 'dag_' || r %% 10, 'run_' || r, 'manual', 'success', to_timestamp(1700000000 + r), now(), 0
  FROM generate_series(1, %(runs)s) r;
INSERT INTO task_instance (id, task_id, dag_id, run_id, map_index, state, pool, pool_slots, try_number, max_tries,
                           priority_weight, span_status, end_date)
  SELECT md5('ti' || r)::uuid, 'train', 'dag_' || r %% 10, 'run_' || r, -1,
         CASE r %% 7 WHEN 0 THEN 'failed' ELSE 'success' END, 'default_pool', 1, 1, 0, 1, 'ended', now()
  FROM generate_series(1, %(runs)s) r;
INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
  SELECT r, 'train', -1, 'nemo_job', 'dag_' || r %% 10, 'run_' || r,
         jsonb_build_object('key', 'key-' || r, 'handle', jsonb_build_object('kind', 'slurm', 'id', r::text),
                            'machines', jsonb_build_object('nodes', 1, 'gpus', 8),
                            'config', (SELECT jsonb_object_agg('layer.' || p || '.width', (r * p) %% 50)
                                       FROM generate_series(1, 200) p),
                            'run', jsonb_build_object('uri', %(uri)s::text, 'run_id', md5(r::text))),
         to_timestamp(1700000000 + r)
  FROM generate_series(1, %(runs)s) r;
ANALYZE;
"""

Ask = Callable[[], int]
Case = Callable[["Bench"], tuple[Ask, Ask | None]]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    """Adds a case to the table."""

    def add(made: Case) -> Case:
        CASES[name] = made
        return made

    return add


class Bench:
    """What the cases ask.

    Attributes:
        uri: The address of the MLflow server.
        mlflow: MLflow's own client.
        experiments: Ids of the experiments, which it must be told.
        newest: Ids of the newest runs, as many as a page has.
    """

    def __init__(self, uri: str, count: int) -> None:
        import hashlib

        from fastapi import FastAPI
        from fastapi.testclient import TestClient
        from mlflow import MlflowClient

        from nemo_airflow.plugin.api import listing, metrics
        from nemo_airflow.plugin.api.rights import Rights, _rights
        from nemo_airflow.plugin.api.routes import make_router

        class All(Rights):
            def may(self, *asked: Any) -> bool:
                return True

        app = FastAPI()
        app.include_router(make_router())
        app.dependency_overrides[_rights] = lambda: All(None)
        listing._KEPT, metrics._KEPT = -1.0, 0  # each answer is MLflow's
        self._client = TestClient(app)
        self.uri = uri
        self.mlflow = MlflowClient(uri)
        self.experiments = [str(1000 + number) for number in range(EXPERIMENTS)]
        self.newest = [hashlib.md5(str(count - number).encode()).hexdigest() for number in range(PAGE)]

    def ask(self, path: str, **query: Any) -> Any:
        """Returns the answer of a route."""
        answer = self._client.get(f"/{path}", params=query)
        answer.raise_for_status()
        return answer.json()

    def lists(self, which: str = "", order: str = "attributes.start_time DESC", **query: Any) -> tuple[Ask, Ask]:
        """Returns ours and theirs for one page of a list."""
        of_jobs = "tags.`nemo_airflow.plan_digest` LIKE '%'" + (f" AND {which}" if which else "")

        def theirs() -> int:
            return len(self.mlflow.search_runs(self.experiments, of_jobs, max_results=PAGE, order_by=[order]))

        return lambda: len(self.ask("runs", limit=PAGE, column="metrics.m.1", **query)["runs"]), theirs


@case("list: the newest")
def newest(bench: Bench) -> tuple[Ask, Ask | None]:
    return bench.lists()


@case("list: of a DAG that failed")
def filtered(bench: Bench) -> tuple[Ask, Ask | None]:
    which = "tags.`airflow.dag_id` = 'dag_3' AND tags.`nemo_airflow.state` = 'failed'"
    return bench.lists(which, dag_id="dag_3", state="failed")


@case("list: with a config value")
def of_config(bench: Bench) -> tuple[Ask, Ask | None]:
    return bench.lists("params.`layer.7.width` = '7'", config="layer.7.width=7")


@case("list: sorted by a metric below a half")
def by_metric(bench: Bench) -> tuple[Ask, Ask | None]:
    return bench.lists("metrics.`m.1` < 0.5", "metrics.`m.1` ASC", metric="m.1<0.5", sort="metrics.m.1")


@case("the best of all")
def best(bench: Bench) -> tuple[Ask, Ask | None]:
    def theirs() -> int:
        return len(bench.mlflow.search_runs(bench.experiments, max_results=1, order_by=["metrics.`m.1` DESC"]))

    return lambda: bool(bench.ask("runs/best", goal="m.1", better="max")["run"]), theirs


@case("names for columns and filters")
def names(bench: Bench) -> tuple[Ask, Ask | None]:
    return lambda: len(bench.ask("runs/names")["params"]) // PARAMS, None


@case(f"lines of {PAGE} jobs, {POINTS} points each")
def lines(bench: Bench) -> tuple[Ask, Ask | None]:
    def theirs() -> int:
        return len([bench.mlflow.get_metric_history(run_id, "m.1") for run_id in bench.newest])

    return lambda: len(bench.ask("runs/sparklines", metric="m.1", mlflow_run_id=bench.newest)["lines"]), theirs


@case("a job's page")
def job(bench: Bench) -> tuple[Ask, Ask | None]:
    run_id = bench.newest[0]
    return lambda: bool(bench.ask("job", mlflow_run_id=run_id)["key"]), lambda: bool(bench.mlflow.get_run(run_id))


@case(f"a line of {LONG:,} points")
def long_line(bench: Bench) -> tuple[Ask, Ask | None]:
    run_id = bench.newest[0]

    def theirs() -> int:  # as MLflow's own page does: its client would read all points
        asked = {"run_ids": run_id, "metric_key": "long", "max_results": "2500"}
        where = f"{bench.uri}/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"
        return len(httpx.get(where, params=asked, timeout=60).raise_for_status().json()["metrics"])

    return lambda: len(bench.ask("job/points", metric="long", mlflow_run_id=run_id)["lines"][0]["steps"]), theirs


@case("what is under way")
def live(bench: Bench) -> tuple[Ask, Ask | None]:
    return lambda: bool(bench.ask("runs/live")["newest"]), None


@case("at a glance, on Airflow's home")
def glance(bench: Bench) -> tuple[Ask, Ask | None]:
    return lambda: len(bench.ask("overview", failed_since=time.time() + 3600)["newest"]) // 5, None


def main() -> None:
    """Runs the benchmark and prints its tables."""
    count, rounds = (*map(int, sys.argv[1:]), *(10_000, 20)[len(sys.argv) - 1 :])
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="nemo-bench-") as folder, databases() as (runs, airflow):
        server = Server(Path(folder), runs)
        try:
            server.start()
            numbers = {"runs": count, "params": PARAMS, "metrics": METRICS, "experiments": EXPERIMENTS}
            execute(plain(runs), FILL, numbers)
            execute(plain(runs), FILL_POINTS, {"runs": count, "points": POINTS})
            execute(plain(runs), FILL_LONG, {"runs": count, "points": LONG})
            use_airflow(Path(folder), airflow, server.uri)
            execute(plain(airflow), FILL_AIRFLOW, {"runs": count, "uri": server.uri})
            print(f"| of {count:,} jobs | p50, ms | p95, ms | MLflow's own, p50, ms | ratio |")
            print("|---|--:|--:|--:|--:|")
            bench = Bench(server.uri, count)
            for name, made in CASES.items():
                measure(name, *made(bench), rounds)
            paint(Path(folder), server.uri)
        finally:
            server.close()


@contextlib.contextmanager
def databases() -> Iterator[tuple[str, str]]:
    """Two new databases of the lab's PostgreSQL: MLflow's and Airflow's."""
    admin = postgres()
    made = []
    try:
        for what in ("runs", "airflow"):
            name = f"bench_{what}_{secrets.token_hex(4)}"
            execute(admin, f"CREATE DATABASE {name}")
            made.append(name)
        yield tuple(urlsplit(admin)._replace(scheme="postgresql+psycopg2", path=f"/{name}").geturl() for name in made)
    finally:
        for name in made:
            execute(admin, f"DROP DATABASE {name} WITH (FORCE)")


def plain(address: str) -> str:
    """Returns an address as the driver itself takes it."""
    return address.replace("+psycopg2", "")


def use_airflow(folder: Path, database: str, mlflow: str) -> None:
    """Makes this process an API server of an Airflow with a new database."""
    os.environ |= {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"sqlite+aiosqlite:///{folder}/unused.db",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "MLFLOW_TRACKING_URI": mlflow,
        "NEMO_AIRFLOW_HOME": str(folder / "nemo"),
    }
    from airflow import settings
    from airflow.models import import_all_models
    from airflow.models.base import Base

    import_all_models()
    settings.configure_orm()
    Base.metadata.create_all(settings.engine)


def measure(name: str, ours: Ask, theirs: Ask | None, rounds: int) -> None:
    """Asks both in turns, and prints the row."""
    asks = {"ours": ours, **({"theirs": theirs} if theirs else {})}
    times: dict[str, list[float]] = {who: [] for who in asks}
    for turn in range(rounds + 1):
        for who, ask in asks.items():
            begun = time.perf_counter()
            found = ask()
            if turn:  # the first is to warm up
                times[who].append((time.perf_counter() - begun) * 1000)
            if not found:
                raise SystemExit(f"{name}: {who} found nothing")
    median = {who: statistics.median(each) for who, each in times.items()}
    p95 = statistics.quantiles(times["ours"], n=20, method="inclusive")[-1]
    beside = f"{median['theirs']:.0f} | {median['ours'] / median['theirs']:.2f}" if theirs else "|"
    print(f"| {name} | {median['ours']:.0f} | {p95:.0f} | {beside} |", flush=True)


def paint(folder: Path, mlflow: str) -> None:
    """Looks at the list of all jobs in Chromium, and prints how soon its first row is seen."""
    from playwright.sync_api import sync_playwright

    from nemo_airflow.cli.airflow_server import AirflowServer

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("install a browser: apt-get install chromium")
    for name in ("AIRFLOW_HOME", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"):
        del os.environ[name]
    (folder / "dags").mkdir()
    server = AirflowServer(folder / "server", folder / "dags", env={"MLFLOW_TRACKING_URI": mlflow}, open_to_all=True)
    try:
        server.start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
            page.set_default_timeout(120_000)
            times = [time_of_first_row(page, server.url) for _ in range(6)][1:]
            browser.close()
    finally:
        server.stop()
    print("\n| in Chromium | median, ms | longest, ms |\n|---|--:|--:|")
    for what, each in (("the page is there", 0), ("its first row", 1)):
        some = [pair[each] for pair in times]
        print(f"| {what} | {statistics.median(some):.0f} | {max(some):.0f} |")


def time_of_first_row(page: Any, url: str) -> tuple[float, float]:
    """Returns in how many milliseconds from another page of Airflow the list is there, and its first row."""
    page.goto(f"{url}/dags")
    link = page.get_by_role("link", name="Experiments")
    link.wait_for()
    page.wait_for_load_state("networkidle")
    begun = time.perf_counter()
    link.click()
    page.locator(".nemo-experiments h1").wait_for()
    there = time.perf_counter()
    page.locator(".nemo-grid-body .nemo-grid-row a, .nemo-grid-body .nemo-grid-row span").first.wait_for()
    return (there - begun) * 1000, (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    main()
