"""What is wrong in a DAG file is an error of that file: the DAG is not imported, and nothing runs."""

import datetime
import subprocess
import sys

import operator_jobs as jobs
import pytest
from airflow.sdk import task
from operator_dags import new_dag, run

from nemo_airflow import Config, LocalExecutor, MLflowTracker, NemoRunOperator, Partial, Script, params_from
from nemo_airflow.exceptions import ConfigError, ExecutorError, NemoAirflowError
from nemo_airflow.executors import DockerExecutor, ScriptTemplate

TRAIN = Config(jobs.train, model=Config(jobs.Model))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": jobs.number}, r"config=number is not a config: write Config\(number, \.\.\.\)"),
        ({"config": 3}, "config is int, not a Config"),
        ({"config": Config(jobs.train)}, "^model: train requires this parameter, and it is not set"),
        ({"config": Partial(jobs.double)}, "^value: double requires this"),
        ({"config": Config(jobs.train, model=Config(jobs.fail))}, "^model.message: fail requires this"),
        ({"config": TRAIN, "overrides": ["lrr=3"]}, "'lrr'"),
        ({"config": TRAIN, "overrides": {"model.hiden": 3}}, "did you mean 'hidden'"),
        ({"config": TRAIN, "overrides": {"model.hidden": "many"}}, "^model.hidden: expected int"),
        ({"config": TRAIN, "overrides": ["lrr=3"], "params_prefix": "p"}, "'lrr'"),
        ({"config": TRAIN, "overrides": ["lrr=3", "model={{ params.model }}"]}, "'lrr'"),
        (
            {"config": TRAIN, "overrides": ["model=@/etc/passwd.yaml"]},
            "may not read files",
        ),
        ({"config": TRAIN, "overrides": "learning_rate=3"}, "overrides is str, not a mapping or a list"),
        ({"config": TRAIN, "job_executor": Config(LocalExecutor, time="2h")}, "time='2h' is not a time limit"),
        ({"config": TRAIN, "job_executor": LocalExecutor(launcher=ScriptTemplate(text="{{ comand }}"))}, "comand"),
        ({"config": TRAIN, "job_executor": 3}, "job_executor is int, not an executor"),
        ({"config": TRAIN, "job_executor": "nowhere"}, "no executor 'nowhere'"),
        ({"config": TRAIN, "packager": "git"}, r"packager='git' is not a packager: .*GitArchivePackager\(\)"),
        ({"config": TRAIN, "tracker": "mlflow"}, r"tracker='mlflow' is not a tracker: .*MLflowTracker\(\)"),
        ({"config": TRAIN, "tracker": MLflowTracker}, "is not a tracker"),
    ],
)
def test_a_wrong_argument_is_refused_where_it_is_written(arguments, message):
    with new_dag() as dag, pytest.raises(NemoAirflowError, match=message):
        NemoRunOperator(task_id="t", **arguments)
    assert dag.task_ids == []


def test_arguments_of_the_decorator_are_checked_too():
    @task.nemo(packager="git")
    def train():
        return TRAIN

    with new_dag(), pytest.raises(ConfigError, match="packager='git'"):
        train()

    @task.nemo
    def other():
        return TRAIN

    with (
        pytest.raises(ExecutorError, match="time='2h'"),
        new_dag(default_args={"job_executor": LocalExecutor(time="2h")}),
    ):
        other()


def test_it_is_an_import_error_of_the_dag(tmp_path):
    (tmp_path / "trainer.py").write_text("def train(lr: float = 0.1): pass\n")
    (tmp_path / "wrong.py").write_text(
        "from datetime import datetime\n"
        "from airflow.sdk import DAG\n"
        "from nemo_airflow import Config, NemoRunOperator\n"
        "from trainer import train\n"
        "with DAG('d', schedule=None, start_date=datetime(2026, 1, 1)):\n"
        "    NemoRunOperator(task_id='t', config=Config(train), overrides=['lrr=3'])\n"
    )
    code = (
        "import sys; from airflow.dag_processing.dagbag import DagBag\n"
        "bag = DagBag(sys.argv[1])\n"
        "print('DAGs imported:', len(bag.dags), *bag.import_errors.values())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "DAGs imported: 0" in done.stdout
    assert "'lrr'" in done.stdout


def test_what_has_no_value_yet_is_left_to_the_task():
    with new_dag(params=params_from(Config(jobs.double), "p")):

        @task
        def upstream():
            return {"hidden": 3}

        output = upstream()
        form = {"config": Config(jobs.double), "params_prefix": "p"}
        given = [
            form,
            {**form, "overrides": ["value={{ 3 }}"]},
            {"config": Config(jobs.double), "overrides": {"value": output}},
            {"config": Config(jobs.double), "overrides": ["value=3"]},
            {"config": Config(jobs.double), "overrides": ["{{ 'value' }}=3"]},
            {"config": Config(jobs.double), "overrides": output},
            {"config": Config(jobs.double), "overrides": "{{ params.all }}"},
            {"config": Config(jobs.train, model=output), "overrides": {"model.hidden": 4}},
            {"config": Config(jobs.train, model=Config(jobs.Model, hidden=output)), "overrides": ["learning_rate=3"]},
            {"config": output},
            {"config": "{{ params.recipe }}"},
            {"config": TRAIN, "job_executor": "{{ params.executor }}"},
            {"config": TRAIN, "job_executor": LocalExecutor(time="{{ params.time }}")},
            {"config": TRAIN, "job_executor": Config(LocalExecutor, time=output)},
            {"config": TRAIN, "tracker": None, "packager": None},
            {"config": TRAIN, "tracker": MLflowTracker(tracking_uri="{{ conn.mlflow.host }}")},
            {"config": TRAIN, "overrides": {"model": Config(jobs.DeepModel, depth=3), "model.depth": 4}},
            {"config": Script(inline="true"), "job_executor": DockerExecutor(container_image="i")},
        ]
        for number, arguments in enumerate(given):
            NemoRunOperator(task_id=f"t{number}", **arguments)


@pytest.mark.usefixtures("airflow_database")
def test_a_mapped_task_with_a_wrong_argument_fails_without_a_retry(defaults, capfd, caplog):
    with new_dag(default_args={"retries": 2, "retry_delay": datetime.timedelta(0)}) as dag:
        NemoRunOperator.partial(task_id="t", overrides=["lrr=3"], **defaults).expand(config=[TRAIN])
        NemoRunOperator.partial(task_id="p", packager="git", **defaults).expand(config=[TRAIN])
        NemoRunOperator.partial(task_id="e", config=TRAIN, tracker=None).expand(
            job_executor=[Config(LocalExecutor, time="2h")]
        )
    states, _ = run(dag)
    assert set(states.values()) == {"failed"}
    assert "'lrr'" in "".join(capfd.readouterr()) + caplog.text
