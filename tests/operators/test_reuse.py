"""A task that reuses the run of an earlier one: when it does, and when it may not."""

import asyncio
import itertools
import json
import multiprocessing
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from airflow.sdk import task
from airflow.sdk.exceptions import TaskDeferred
from mlflow import MlflowClient
from operator_dags import new_dag, run

from nemo_airflow import Artifact, Config, LocalExecutor, MLflowTracker, NemoRunOperator, PatternPackager
from nemo_airflow.cli import main
from nemo_airflow.exceptions import ConfigError, JobFailed
from nemo_airflow.tracking.reuse import RESULT
from nemo_airflow.triggers import reuse as waiting
from nemo_airflow.triggers.reuse import NemoReuseTrigger

CODE = """
from pathlib import Path

from nemo_airflow.runner import Artifact, artifact, output_dir


def make(counter: str, text: str = "weights", fails: str = "", seconds: float = 0, given: "Artifact | None" = None):
    import time

    with open(counter, "a") as file:
        file.write("ran\\n")
    time.sleep(seconds)
    if fails and not Path(fails).exists():
        Path(fails).touch()
        raise ValueError("not yet")
    path = Path(output_dir(), "model.txt")
    path.write_text(text)
    return {"model": artifact(path), "size": len(text)}
"""


@pytest.fixture
def world(tmp_path, monkeypatch, task_context, store, mlflow_database):
    return World(tmp_path, monkeypatch, task_context, store, mlflow_database)


class World:
    """Code, a tracker, and tasks, each of a DAG of its own, that run the code."""

    def __init__(self, tmp_path, monkeypatch, task_context, store, uri):
        self.path = tmp_path
        monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
        self.code = tmp_path / "code"
        self.code.mkdir()
        (self.code / "reused_job.py").write_text(CODE)
        monkeypatch.syspath_prepend(str(self.code))
        sys.modules.pop("reused_job", None)
        import reused_job

        self.make = reused_job.make
        self.counter = tmp_path / "counter"
        self.uri = uri
        # Where a file of a run is looked for that no store has any more.
        monkeypatch.setenv("MLFLOW_TRACKING_URI", self.uri)
        self.client = MlflowClient(self.uri)
        self.task_context = task_context
        self.store = store

    def config(self, **values):
        return Config(self.make, **{"counter": str(self.counter), **values})

    def arguments(self, **arguments):
        return {
            "job_executor": LocalExecutor(root=str(self.path / "jobs"), grace=1),
            "packager": PatternPackager(path=str(self.code)),
            "tracker": MLflowTracker(tracking_uri=self.uri),
            "deferrable": False,
            "reuse": True,
            **arguments,
        }

    def execute(self, config=None, pushed=None, **arguments):
        with new_dag() as dag:
            operator = NemoRunOperator(task_id="t", config=config or self.config(), **self.arguments(**arguments))
        self.store.clear()
        context = self.task_context(dag)
        context["ti"].xcom_push = lambda key, value: pushed.update({key: value}) if pushed is not None else None
        return operator.execute(context)

    @property
    def ran(self):
        return len(self.counter.read_text().splitlines()) if self.counter.exists() else 0

    @staticmethod
    def result_of(thread, results):
        thread.join(300)
        return results[0]

    def newest(self):
        experiments = [each.experiment_id for each in self.client.search_experiments()]
        which = "tags.`nemo_airflow.plan_digest` LIKE '%'"
        return self.client.search_runs(experiments, which, order_by=["attributes.start_time DESC"])[0]


def test_the_same_again_is_reused_and_each_difference_runs(world):
    first = world.execute(reuse=False)
    earlier, pushed = world.newest(), {}
    assert world.execute(pushed=pushed) == first
    assert world.ran == 1
    assert Artifact.from_json(first["model"]).run_id == earlier.info.run_id
    assert pushed["nemo_job"]["run"]["run_id"] == earlier.info.run_id
    assert pushed["nemo_job"]["reused_at"] > earlier.info.end_time / 1000
    assert pushed["model"] == first["model"]
    [by] = [value for tag, value in world.newest().data.tags.items() if tag.startswith("nemo_airflow.reused_by.")]
    assert "task t of DAG operator_test_" in by

    ran = itertools.count(2)
    world.execute(world.config(text="other"))
    assert world.ran == next(ran), "another plan"
    world.execute(env={"SEED": "1"})
    assert world.ran == next(ran), "another environment"
    world.execute(job_executor=LocalExecutor(root=str(world.path / "jobs"), grace=1, python=sys.executable))
    assert world.ran == next(ran), "another image"
    given = Artifact.from_json(first["model"])
    world.execute(world.config(given=given))
    assert world.ran == next(ran), "an input"
    same_from_elsewhere = Artifact(given.digest, given.size, file=given.file, address=given.address)
    world.execute(world.config(given=same_from_elsewhere))
    assert world.ran == next(ran) - 1, "the same input of another run"
    (world.code / "more.py").write_text("")
    world.execute()
    assert world.ran == 6, "another package"


def test_only_a_run_that_succeeded_not_long_ago_and_still_is_there_is_reused(world):
    with pytest.raises(JobFailed, match="not yet"):
        world.execute(world.config(fails=str(world.path / "marker")))
    world.execute(world.config(fails=str(world.path / "marker")))
    assert world.ran == 2, "after a failed run"
    again = world.config(fails=str(world.path / "marker"))
    run_id = world.newest().info.run_id
    world.client.set_terminated(run_id, "FINISHED", round((time.time() - 7200) * 1000))
    world.execute(again, reuse="3h")
    assert world.ran == 2
    world.execute(again, reuse="1h")
    assert world.ran == 3, "too old"
    for state in ("lost", "cancelled"):
        world.client.set_tag(world.newest().info.run_id, "nemo_airflow.state", state)
    world.client.delete_run(run_id)
    world.execute(again)
    assert world.ran == 4, "cancelled, and deleted"


def test_a_run_with_an_artifact_that_is_gone_or_was_written_to_is_not_reused(world):
    made = Artifact.from_json(world.execute()["model"])
    kept = next((world.path / "home" / "packages").rglob(f"*{made.digest}*.file"))
    kept.chmod(0o644)
    kept.write_text("weighty")  # of the same size
    world.execute()
    assert world.ran == 2
    kept.unlink(missing_ok=True)
    world.execute()
    assert world.ran == 2, "the run in MLflow still has it"
    kept.unlink()
    shutil.rmtree(world.path / "mlartifacts")
    world.execute()
    assert world.ran == 3


def test_processes_that_ask_at_once_run_once(world):
    with new_dag() as dag:
        config = world.config(seconds=1)
        operators = [NemoRunOperator(task_id=f"t{number}", config=config, **world.arguments()) for number in range(3)]

    def execute(operator):
        context = world.task_context(dag)
        context["ti"].task_id = operator.task_id
        (world.path / operator.task_id).write_text(json.dumps(operator.execute(context)))

    processes = [multiprocessing.get_context("fork").Process(target=execute, args=(each,)) for each in operators]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * 3
    assert world.ran == 1
    first, *others = ((world.path / operator.task_id).read_text() for operator in operators)
    assert others == [first] * 2


def test_a_deferred_task_waits_in_the_triggerer_for_the_one_that_runs_the_same(world, monkeypatch):
    monkeypatch.setattr(waiting, "_LOOK", 0.2)
    config, results = world.config(seconds=2), []
    other = threading.Thread(target=lambda: results.append(world.execute(config)))
    with new_dag() as dag:
        operator = NemoRunOperator(task_id="t", config=config, **world.arguments(deferrable=True))
    context = world.task_context(dag)
    context["task_state_store"] = type(world.store)()
    other.start()
    while world.ran == 0:  # the other one has the claim
        time.sleep(0.05)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    path, arguments = deferred.value.trigger.serialize()
    assert path == "nemo_airflow.triggers.reuse.NemoReuseTrigger"
    event = asyncio.run(anext(NemoReuseTrigger(**json.loads(json.dumps(arguments))).run()))
    assert operator.look_again(context, event.payload) == world.result_of(other, results)
    assert world.ran == 1


def test_why_a_run_was_not_reused_is_told(world, capsys):
    world.execute(reuse=False)
    world.execute(world.config(text="other"), reuse="7d", env={"SEED": "1"})
    run_id = world.newest().info.run_id
    capsys.readouterr()
    assert main(["why-not-reused", run_id, "--tracking-uri", world.uri]) == 0
    nearest, *why = capsys.readouterr().out.splitlines()
    assert nearest.startswith("nearest earlier run: operator-test-")
    assert why == ["plan: text is other, and weights then", "environment: another variable, or another value of one"]
    assert main(["why-not-reused", run_id, "--tracking-uri", world.uri, "-o", "json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["why"]) == {"plan", "environment"}
    assert main(["why-not-reused", "0" * 32, "--tracking-uri", world.uri]) != 0
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_run_without_a_result_and_a_config_with_a_secret_are_not_reused(world, caplog):
    world.execute()
    file = next(Path(world.path, "mlartifacts").rglob(Path(RESULT).name))
    file.unlink()
    world.execute()
    assert world.ran == 2
    from airflow.sdk.log import mask_secret

    mask_secret("hidden-text")
    for _ in range(2):
        world.execute(world.config(text="hidden-text"))
    assert world.ran == 4


@pytest.mark.usefixtures("airflow_database")
def test_a_dag_that_runs_again_submits_nothing_and_its_lineage_leads_to_the_earlier_run(world):
    def pipeline():
        with new_dag() as dag:

            @task.nemo(**world.arguments(reuse="7d", deferrable=True))
            def train():
                return world.config()

            made = train()
            config = world.config(given=made["model"], text="second")
            NemoRunOperator(task_id="evaluate", config=config, **world.arguments())
        return run(dag)

    states, results = pipeline()
    again_states, again = pipeline()
    assert {*states.values(), *again_states.values()} == {"success"}
    assert results == again
    assert world.ran == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reuse": "a week"}, "reuse='a week' does not say how old a run may be: write '7d', '12h'"),
        ({"reuse": 7}, "reuse=7 does not say"),
        ({"reuse": "0d"}, "reuse='0d' does not say"),
        ({"reuse": True, "tracker": None}, "reuse needs a tracker"),
        ({"reuse": True, "packager": None}, "reuse needs a packager, or an executor with container_image"),
    ],
)
def test_what_cannot_be_reused_is_refused_when_the_dag_is_parsed(world, arguments, message):
    with new_dag(), pytest.raises(ConfigError, match=message):
        NemoRunOperator(task_id="t", config=world.config(), **world.arguments(**arguments))
