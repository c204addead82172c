"""What a job returns as an artifact arrives in the next one; run by ``dag.test()`` with real jobs on this machine."""

import dataclasses

import artifact_jobs as jobs
import pytest
from mlflow import MlflowClient
from operator_dags import jobs_in, new_dag, run

from nemo_airflow import Artifact, Config, LocalExecutor, MLflowTracker, NemoRunOperator
from nemo_airflow.artifacts import fetch_artifact
from nemo_airflow.exceptions import ArtifactError, ConfigError
from nemo_airflow.runner.digests import digest_of
from nemo_airflow.tracking.mlflow.recorded import digests_of_runs

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


def test_a_job_does_not_succeed_and_lose_its_artifact_where_its_result_is_not_json(defaults, caplog, capfd):
    with new_dag() as dag:
        NemoRunOperator(task_id="t", config=Config(jobs.make_with_what_json_has_not), **defaults)
    states, _ = run(dag)
    assert states == {("t", -1): "failed"}
    printed = "".join(capfd.readouterr()) + caplog.text
    assert "the return value has artifacts, which would be lost, and cannot be kept: type builtins.object" in printed


def test_an_earlier_runs_artifact_is_found_by_name_and_lineage_leads_both_ways(
    defaults, tmp_path, monkeypatch, mlflow_database
):
    arguments = {**defaults, "tracker": MLflowTracker(tracking_uri=mlflow_database)}
    with new_dag() as dag:
        made = NemoRunOperator(task_id="make", config=Config(jobs.make), **arguments).output
        NemoRunOperator(task_id="take", config=Config(jobs.take_all, trained=made), **arguments)
    states, results = run(dag)
    assert set(states.values()) == {"success"}
    given = Artifact.from_json(results[("make", -1)]["data"])
    client = MlflowClient(mlflow_database)
    experiment = client.get_experiment_by_name(dag.dag_id).experiment_id
    [maker] = client.search_runs([experiment], f"tags.`nemo_airflow.artifact_digests.0` LIKE '%{given.digest}%'")
    [taker] = client.search_runs([experiment], f"tags.`nemo_airflow.input_run.{maker.info.run_id}` LIKE '%'")
    assert given.run_id == maker.info.run_id
    assert taker.data.tags["nemo_airflow.input.data"] == f"{maker.info.run_id} {given.digest}"
    assert given.digest[:12] in taker.data.params["trained.data"]
    assert given.digest in digests_of_runs(mlflow_database)
    found = Artifact.from_run(maker.info.run_id, "data", tracking_uri=mlflow_database)
    assert (found.digest, found.output) == (given.digest, "data")
    # A file of a run that nobody returned as an artifact.
    other = Artifact.from_run(maker.info.run_id, "checkpoints/model.bin", tracking_uri=mlflow_database)
    assert other.digest == Artifact.from_json(results[("make", -1)]["model"]).digest
    with new_dag() as later:
        NemoRunOperator(task_id="fetch", config=Config(jobs.fetch, run_id=maker.info.run_id), **arguments)
    assert run(later)[1] == {("fetch", -1): ["1\n", "checkpoints", "data", "nemo_airflow"]}
    # On a machine without the store MLflow's copy is used, as far as it has one: it keeps no links.
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "other machine"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
    again = fetch_artifact(Artifact.from_json(results[("make", -1)]["model"]), tmp_path / "fetched")
    assert digest_of(str(again)) == other.digest
    with pytest.raises(ArtifactError, match=f"{given.digest[:12]}.* is not there any more: neither in .*other machine"):
        fetch_artifact(Artifact.from_json({"_artifact_": {**given.to_json()["_artifact_"], "run_id": ""}}), tmp_path)


def test_a_model_of_the_registry_is_given_to_a_job(defaults, tmp_path, monkeypatch, mlflow_database):
    client = MlflowClient(mlflow_database)
    experiment = client.create_experiment("models", artifact_location=f"file://{tmp_path}/artifacts")
    source = client.create_run(experiment).info
    (tmp_path / "model.txt").write_text("champion")
    client.log_artifact(source.run_id, str(tmp_path / "model.txt"))
    client.create_registered_model("digits")
    client.create_model_version("digits", f"{source.artifact_uri}/model.txt", run_id=source.run_id)
    client.set_registered_model_alias("digits", "champion", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
    champion = Artifact.from_model("models:/digits@champion")
    assert (champion.name, champion.run_id) == ("digits/1", source.run_id)
    with new_dag() as dag:
        NemoRunOperator(task_id="read", config=Config(jobs.read_texts, files=[champion]), **defaults)
    assert run(dag)[1] == {("read", -1): ["champion"]}
    with pytest.raises(ArtifactError, match="MLflow cannot find models:/digits@none"):
        Artifact.from_model("models:/digits@none")


def test_a_task_whose_artifact_is_gone_fails_at_once_and_submits_nothing(defaults, tmp_path, caplog, capfd):
    gone = Artifact("1" * 64, 3, file="model.bin", name="model", job="earlier")
    with new_dag() as dag:
        NemoRunOperator(task_id="t", config=Config(jobs.pass_on, model=gone), retries=2, **defaults)
    states, _ = run(dag)
    assert states == {("t", -1): "failed"}
    assert not jobs_in(tmp_path / "jobs")
    printed = "".join(capfd.readouterr()) + caplog.text
    assert "artifact 'model' (file, 111111111111, 3 bytes) of job earlier is not there any more" in printed


def test_a_parameter_that_takes_no_path_refuses_an_artifact_with_its_place():
    with pytest.raises(ConfigError, match=r"make\.seed: expected str, got Artifact\("):
        Config(jobs.make, seed=Artifact("1" * 64, 3, file="model.bin"))


def test_an_executor_that_ships_no_artifacts_is_refused_before_anything_is_submitted(defaults, tmp_path, caplog, capfd):
    class Forgetful(LocalExecutor):
        def render(self, job):
            return dataclasses.replace(super().render(job), inputs=())

    with new_dag() as dag:
        made = NemoRunOperator(task_id="make", config=Config(jobs.make), **defaults).output
        where = {**defaults, "job_executor": Forgetful(root=str(tmp_path / "others"))}
        NemoRunOperator(task_id="take", config=Config(jobs.take_all, trained=made), **where)
    states, _ = run(dag)
    assert states[("take", -1)] == "failed"
    assert not jobs_in(tmp_path / "others")
    assert "Forgetful sends no artifacts to its jobs" in "".join(capfd.readouterr()) + caplog.text
