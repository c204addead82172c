"""The first tasks of an installation, which make MLflow's database."""

import subprocess
import sys

OPEN = """
import sys
from nemo_airflow.tracking.mlflow import address
from nemo_airflow.tracking.mlflow.store import open_store
from nemo_airflow.tracking.mlflow import client

uri, credentials = address.resolve(sys.argv[1], None)
print("ready", flush=True)
sys.stdin.readline()
print(open_store(uri, credentials).experiment("Default"))
"""


def test_tasks_that_start_together_make_one_database(tmp_path):
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path}/new/mlflow.db"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for task in tasks:
        assert task.stdout.readline() == "ready\n"
    for task in tasks:
        task.stdin.write("\n")
        task.stdin.flush()
    for task in tasks:
        out, err = task.communicate()
        assert (task.returncode, out) == (0, "0\n"), err[-2000:]
