"""``make bench``: what a trivial job costs, beside the bare process and beside NeMo-Run.

All in one run, interleaved, medians of several; the ratios are what counts, not the seconds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCRATCH = ROOT / ".bench"
NEMO_RUN = ("nemo-run==0.11.1", "leptonai==0.27.3")

Row = dict[str, float]


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=7, help="runs of each, after one to warm up")
    parser.add_argument("--no-peer", action="store_true", help="leave NeMo-Run out")
    options = parser.parse_args()
    SCRATCH.mkdir(exist_ok=True)
    contenders = {"subprocess.run": bare}
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home:
        contenders |= airflow_contenders(Path(home))
        if not options.no_peer:
            python = peer_environment()
            contenders["NeMo-Run LocalExecutor"] = lambda: peer(python)
        rows: dict[str, list[Row]] = {name: [] for name in contenders}
        for turn in range(options.repeat + 1):
            for name, contender in contenders.items():
                row = contender()
                if turn:
                    rows[name].append(row)
                print(f"\rturn {turn} of {options.repeat}: {name:40}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    report(rows)
    report_parsing(options.repeat)


def report_parsing(repeat: int) -> None:
    """Prints how long the DAG files take to import, beside Airflow and what they name themselves."""
    base = "import airflow.sdk, fiddle; from airflow.sdk import DAG, Asset, BaseHook, BaseOperator, task; task.bash"
    codes = {
        "airflow.sdk and fiddle": base,
        "retrain_digits": "import retrain_digits",
        "sweep_digits": "import sweep_digits",
    }
    times: dict[str, list[float]] = {name: [] for name in codes}
    for turn in range(repeat + 1):
        for name, code in codes.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], cwd=ROOT / "dags", check=True)
            if turn:
                times[name].append(time.perf_counter() - begun)
    from rich.console import Console
    from rich.table import Table

    table = Table("import of", "seconds", "ratio", title=f"Parsing, medians of {repeat}")
    medians = {name: statistics.median(some) for name, some in times.items()}
    for name, median in medians.items():
        table.add_row(name, f"{median:.2f}", f"{median / medians['airflow.sdk and fiddle']:.2f}")
    Console(width=120).print(table)


def report(rows: dict[str, list[Row]]) -> None:
    """Prints medians, and the differences and ratios to the bare process."""
    medians = {
        name: {key: statistics.median(row[key] for row in some) for key in some[0]} for name, some in rows.items()
    }
    base = medians["subprocess.run"]
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"A trivial job, medians of {len(next(iter(rows.values())))}, seconds")
    for column in ("", "to the first line", "over bare", "ratio", "whole job", "over bare", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in medians.items():
        cells = []
        for key in ("first", "whole"):
            cells += [f"{row[key]:.3f}", f"{row[key] - base[key]:+.3f}", f"{row[key] / base[key]:.1f}"]
        table.add_row(name, *cells)
    Console(width=120).print(table)


def bare() -> Row:
    """The function in a plain interpreter of the same environment."""
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-c", "import bench_jobs; print(bench_jobs.trivial())"],
        cwd=HERE, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {"first": float(done.stdout.split()[-1]) - started, "whole": time.time() - started}


def airflow_contenders(home: Path) -> dict[str, object]:
    """The operator in ``dag.test()``, in this process, warm: from ``execute()`` on, without the scheduler."""
    os.environ.update(
        AIRFLOW_HOME=str(home), NEMO_AIRFLOW_HOME=str(home / "nemo"), AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR", PYTHONPATH=str(HERE), GIT_PYTHON_REFRESH="quiet",
    )  # fmt: skip
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    (home / "dags").mkdir()
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    import bench_jobs
    from airflow.sdk import DAG
    from dag_database import register

    from nemo_airflow import Config, GitArchivePackager, MLflowTracker, NemoRunOperator

    class Timed(NemoRunOperator):
        """Notes when ``execute()`` began, when it ended, and what came back."""

        def execute(self, context: object) -> object:
            Timed.started = time.time()
            return self._note(super().execute(context))

        def execute_complete(self, context: object, event: object) -> object:
            return self._note(super().execute_complete(context, event))

        def _note(self, result: object) -> object:
            Timed.first, Timed.ended = result, time.time()
            return result

    repository = home / "repository"
    repository.mkdir()
    shutil.copy(HERE / "bench_jobs.py", repository)
    git = ["git", "-C", str(repository), "-c", "user.name=bench", "-c", "user.email=bench@example.invalid"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "bench"]):
        subprocess.run([*git, *arguments], check=True)
    packager = GitArchivePackager(path=str(repository))

    def contender(name: str, **arguments: object) -> object:
        with DAG(f"bench_{name}", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
            Timed(task_id="trivial", config=Config(bench_jobs.trivial), **arguments)

        register(dag)

        def turn() -> Row:
            dag.test()
            return {"first": Timed.first - Timed.started, "whole": Timed.ended - Timed.started}

        return turn

    return {
        "execute(), no tracker": contender("sync", deferrable=False, tracker=None),
        "execute(), packaged": contender("packaged", deferrable=False, tracker=None, packager=packager),
        "execute(), packaged, MLflow on sqlite": contender(
            "tracked", deferrable=False, packager=packager, tracker=MLflowTracker()
        ),
    }


def peer_environment() -> Path:
    """Installs NeMo-Run into an environment of its own, once, and returns its interpreter."""
    folder = SCRATCH / "nemo-run"
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        print("installing NeMo-Run for the comparison ...", file=sys.stderr)
        uv = shutil.which("uv") or str(ROOT / ".venv" / "uv" / "bin" / "uv")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *NEMO_RUN], check=True)
        (folder / ".ready").touch()
    return python


def peer(python: Path) -> Row:
    """NeMo-Run as its users run it: a script that submits one task and waits."""
    home = SCRATCH / "nemo-run-home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    report_file = home / "report.json"
    env = {"HOME": str(home), "PYTHONPATH": str(HERE), "PATH": f"{python.parent}:{os.environ['PATH']}"}
    command = [str(python), str(HERE / "nemo_run_side.py"), str(report_file)]
    subprocess.run(command, cwd=HERE, check=True, capture_output=True, env={**os.environ, **env})
    ended = time.time()
    logs = [path.read_text() for path in home.rglob("*.log")]
    first = next(
        (
            float(words[2])
            for log in logs
            for line in log.splitlines()
            if (words := line.split())[:2] == ["first", "line"]
        ),
        None,
    )
    if first is None:
        raise SystemExit("NeMo-Run's task did not run; its log:\n" + "\n".join(logs))
    times = json.loads(report_file.read_text())
    # Its import is paid once a process, as Airflow's is here: both are left out of the comparison.
    return {"first": first - times["imported"], "whole": min(times["ended"], ended) - times["imported"]}


if __name__ == "__main__":
    main()
