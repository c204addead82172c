"""What a job returns as an artifact arrives in the next one; run by ``dag.test()`` with real jobs on this machine."""

import artifact_jobs as jobs
import pytest
from operator_dags import new_dag, run

from nemo_airflow import Config, NemoRunOperator
from nemo_airflow.runner.artifacts import Artifact

pytestmark = pytest.mark.usefixtures("airflow_database")


def test_a_file_and_a_folder_arrive_as_a_path_or_as_the_artifact_as_annotated(defaults):
    with new_dag() as dag:
        made = NemoRunOperator(task_id="make", config=Config(jobs.make), **defaults).output
        source = Config(jobs.Source, model=made["model"], data=[made["data"]])
        config = Config(
            jobs.take,
            model=made["model"],
            data=made["data"],
            anything=made["model"],
            count=made["count"],
            source=source,
        )
        NemoRunOperator(task_id="take", config=config, **defaults)
    states, results = run(dag)
    assert set(states.values()) == {"success"}
    given, taken = results[("make", -1)], results[("take", -1)]
    model, data = (Artifact.from_json(given[name]) for name in ("model", "data"))
    assert (model.name, model.kind, model.file, model.size) == ("model", "file", "model.bin", 1000)
    assert (data.name, data.kind, data.file, data.output) == ("data", "folder", "data", "data")
    assert taken == {
        "kinds": [True, True, True],
        "names": ["model.bin", "data"],
        "digests": [model.digest, data.digest, data.digest],
        "links": ["part-0/0.txt", "part-0"],
        "program": True,
        "run": "",
        "count": 20,
        "source": ["model.bin", True],
    }


def test_a_whole_result_is_given_on_with_the_artifacts_in_it(defaults):
    with new_dag() as dag:
        made = NemoRunOperator(task_id="make", config=Config(jobs.make), **defaults).output
        NemoRunOperator(task_id="take", config=Config(jobs.take_all, trained=made), **defaults)
    states, results = run(dag)
    assert set(states.values()) == {"success"}
    given = results[("make", -1)]
    assert results[("take", -1)] == [Artifact.from_json(given[name]).digest for name in ("model", "data")]


def test_artifacts_of_mapped_tasks_arrive_together(defaults):
    with new_dag() as dag:
        made = NemoRunOperator.partial(task_id="make", **defaults).expand(
            config=[Config(jobs.make_file, text=text) for text in ("one", "two", "three")]
        )
        NemoRunOperator(task_id="read", config=Config(jobs.read_texts, files=made.output), **defaults)
    states, results = run(dag)
    assert set(states.values()) == {"success"}
    assert results[("read", -1)] == ["one", "two", "three"]


def test_an_artifact_is_given_on_by_the_job_that_got_it(defaults):
    with new_dag() as dag:
        made = NemoRunOperator(task_id="make", config=Config(jobs.make), **defaults).output
        same = NemoRunOperator(task_id="pass_on", config=Config(jobs.pass_on, model=made["model"]), **defaults).output
        NemoRunOperator(task_id="again", config=Config(jobs.pass_on, model=same["same"]), **defaults)
    states, results = run(dag)
    assert set(states.values()) == {"success"}
    assert results[("again", -1)]["same"] == results[("make", -1)]["model"]


def test_what_was_changed_after_it_was_returned_fails_the_task(defaults, caplog, capfd):
    with new_dag() as dag:
        NemoRunOperator(task_id="spoil", config=Config(jobs.spoil), **defaults)
    states, results = run(dag)
    assert states == {("spoil", -1): "failed"}
    assert not results
    printed = "".join(capfd.readouterr()) + caplog.text
    assert "failed (artifact): artifact 'model.bin'" in printed
    assert "was it written to after artifact(...)" in printed
