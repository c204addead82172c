"""A sweep: eight configs of the digits classifier side by side, and the best of them."""

import datetime

from airflow.sdk import DAG, task
from digits.data import Data
from digits.features import Features
from digits.model import Model, Optimizer
from digits.sweep import fit

from nemo_airflow import Config, GitArchivePackager

CODE = GitArchivePackager(subpath="dags", uncommitted="include", untracked="include")

with DAG(
    "sweep_digits",
    schedule=None,
    # A try costs nothing: if it finds its job running or finished, it continues with it.
    default_args={"retries": 1, "retry_delay": datetime.timedelta(seconds=2)},
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    doc_md=__doc__,
    tags=["nemo", "example"],
):

    @task.nemo(packager=CODE, execution_timeout=datetime.timedelta(minutes=10), max_active_tis_per_dagrun=4)
    def one(hidden: int, learning_rate: float):
        """Returns the config of one point of the sweep."""
        return Config(
            fit,
            data=Config(Data, until="{{ dag_run.run_after | ds }}"),
            features=Config(Features),
            model=Config(Model, hidden=[hidden]),
            optimizer=Config(Optimizer, learning_rate=learning_rate, epochs=4),
        )

    @task
    def best(results: list[dict]) -> dict:
        """Returns the result with the highest held-out accuracy."""
        winner = max(results, key=lambda result: result["accuracy"])
        print(f"best of {len(list(results))}: {winner}")
        return winner

    best(one.expand(hidden=[16, 32, 64, 128], learning_rate=[0.002, 0.01]))
