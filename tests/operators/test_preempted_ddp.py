"""The guide's training of several processes, preempted three times, has the numbers of an undisturbed one."""

import importlib
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from operator_dags import jobs_in, new_dag

from nemo_airflow import Config, LocalExecutor, MLflowTracker, NemoRunOperator, Torchrun

GUIDE = Path(__file__).parents[2] / "docs/guides/multi-node.md"

SLOWLY = """
import time

def train(steps):
    import ddp_training
    all_reduce = ddp_training.dist.all_reduce
    ddp_training.dist.all_reduce = lambda tensor: (time.sleep(0.02), all_reduce(tensor))
    return ddp_training.train(steps)
"""


@pytest.fixture
def train(tmp_path, monkeypatch, task_context, store, lab_torch, mlflow_database):
    """Returns a function that trains with two processes; it returns the result, and the points of the one run."""
    code = tmp_path / "code"
    code.mkdir()
    [example] = re.findall(r"^```py\n(# ddp_training\.py\n.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    (code / "ddp_training.py").write_text(example)
    (code / "slow_training.py").write_text(SLOWLY)
    monkeypatch.syspath_prepend(code)
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    function = importlib.import_module("slow_training").train
    client = MlflowClient(mlflow_database)

    def run(root):
        store.clear()
        with new_dag() as dag:
            operator = NemoRunOperator(
                task_id="t",
                config=Config(function, steps=120),
                job_executor=LocalExecutor(root=str(root), python=lab_torch, launcher=Torchrun(nproc_per_node=2)),
                tracker=MLflowTracker(tracking_uri=client.tracking_uri),
                env={"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
                deferrable=False,
            )
        result = operator.execute(task_context(dag))
        experiment = client.get_experiment_by_name(dag.dag_id).experiment_id
        [found] = client.search_runs([experiment], "tags.`nemo_airflow.plan_digest` LIKE '%'")
        return result, [(each.step, each.value) for each in client.get_metric_history(found.info.run_id, "loss")]

    return run


def preempt(root, times):
    """Warns the runner of each of so many jobs that come, as Slurm would, once it has logged some points."""
    warned = []
    while len(warned) < times:
        for job in jobs_in(root):
            log = job / "log"
            if job not in warned and log.exists() and b'"type":"metrics"' in log.read_bytes():
                os.kill(json.loads((job / "claim").read_text())["pid"], signal.SIGUSR1)
                warned.append(job)
        time.sleep(0.05)


def test_training_of_two_processes_is_preempted_three_times_and_ends_with_the_same_numbers(train, tmp_path):
    undisturbed = train(tmp_path / "undisturbed")
    assert [step for step, _ in undisturbed[1]] == list(range(120))
    scheduler = threading.Thread(target=preempt, args=(tmp_path / "preempted", 3), daemon=True)
    scheduler.start()
    assert train(tmp_path / "preempted") == undisturbed  # to the last digit
    assert len(jobs_in(tmp_path / "preempted")) == 4
    scheduler.join()
