"""Which tasks the graph of a DAG run has, and what its jobs have used."""

import json

from nemo_airflow.executors import SlurmExecutor
from nemo_airflow.executors.machines import Machines, machines_of
from nemo_airflow.plugin.api.task_graph import TaskGraph
from nemo_airflow.tracking.mlflow.jobs import JobRun
from nemo_airflow.tracking.mlflow.usage import machines_of_run, seconds_of_run


def run(**tags):
    return JobRun(
        "r", "k", "n", "running", "", None, "", "slurm", "7", "", began=1000.0, ended=False,
        tags={f"nemo_airflow.{name}": text for name, text in tags.items()},
    )  # fmt: skip


def test_graph_has_the_wanted_tasks_and_what_is_between_them():
    graph = TaskGraph({"a": ("b", "x"), "b": ("c",), "c": ("d",), "x": (), "d": ("y",), "y": ()})
    assert graph.between({"a", "d", "gone"}) == {
        "a": ("b",), "b": ("c",), "c": ("d",), "d": (), "gone": (),
    }  # fmt: skip


def test_machines_are_those_of_all_components_and_gpus_that_were_found_count_where_none_were_asked_for():
    executor = SlurmExecutor(nodes=2, gpus_per_node="a100:4", heterogeneous=[{"nodes": 3}])
    assert machines_of(executor) == Machines(5, 8)
    assert machines_of_run(run(asked_nodes="5", asked_gpus="8", gpus="A100")) == Machines(5, 8)
    assert machines_of_run(run(asked_nodes="2", asked_gpus="0", gpus="A100, A100")) == Machines(2, 4)
    assert machines_of_run(run()) == Machines(1, 0)


def test_time_in_the_queue_is_not_used():
    phases = [
        {"state": "pending", "why": "", "at": 1000.0, "until": 1600.0},
        {"state": "running", "why": "", "at": 1600.0, "until": 1700.0},
        {"state": "running", "why": "", "at": 1800.0},
    ]
    assert seconds_of_run(run(phases=json.dumps({"phases": phases})), now=2000.0) == 300
    assert seconds_of_run(run(phases=json.dumps({"phases": phases[:1]})), now=2000.0) == 0
    assert seconds_of_run(run(phases=json.dumps(phases)[:50]), now=2000.0) == 1000
