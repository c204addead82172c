"""What a run, a model or an artifact was made from, and what came of it, is read from the runs in MLflow."""

import functools
import hashlib
import json
import re
import uuid

import pytest
from mlflow import MlflowClient
from tracking_cases import PLAN, make_job, open_run

from nemo_airflow import Artifact
from nemo_airflow.cli import main
from nemo_airflow.job import JobState, JobStatus
from nemo_airflow.tracking.artifacts import tags_of_artifacts
from nemo_airflow.tracking.mlflow import MLflowTracker

pytestmark = pytest.mark.stores("sqlite", "server")


@functools.cache
def made(uri):
    """The ids of runs, by their names: raw, then clean, then model, which evaluate and deploy are given."""
    tracker, word = MLflowTracker(tracking_uri=uri), uuid.uuid4().hex[:8]
    runs, results = {}, {}

    def add(name, **given):
        root = {**PLAN["root"], **{key: results[source].to_json() for key, source in given.items()}}
        job = make_job(f"{name} {word}", plan={**PLAN, "root": root})
        ref = open_run(tracker, job, parent=f"lineage {word}")
        digest = hashlib.sha256(f"{word} {name}".encode()).hexdigest()
        results[name] = Artifact(digest, 3, file=name, name=name, output=name, job=job.key, run_id=ref.run_id)
        tracker.tag(ref, tags_of_artifacts({name: results[name].to_json()}))
        tracker.ended(ref, JobStatus(JobState.SUCCEEDED, 0))
        runs[name] = ref.run_id

    add("raw")
    add("clean", rows="raw")
    add("model", rows="clean", also="raw")
    add("evaluate", model="model")
    add("deploy", model="model")
    return runs, {name: result.digest for name, result in results.items()}


def lineage(capsys, uri, *words):
    """The names of the runs that the command shows, and between which of them artifacts go."""
    runs, _ = made(uri)
    names = {run_id: name for name, run_id in runs.items()}
    assert main(["lineage", *words, "--tracking-uri", uri, "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    arrows = {(names[use["source"]], use["name"], names[use["run_id"]]) for use in found["uses"]}
    assert len(arrows) == len(found["uses"])
    return {names[run["run_id"]] for run in found["runs"]}, arrows, [names[run_id] for run_id in found["start"]]


CLEAN, MODEL = ("raw", "raw", "clean"), {("clean", "clean", "model"), ("raw", "raw", "model")}
USERS = {("model", "model", "evaluate"), ("model", "model", "deploy")}


def test_all_that_a_run_was_made_from_and_that_came_of_it_is_shown(uri, capsys):
    runs, _ = made(uri)
    assert lineage(capsys, uri, runs["model"]) == (set(runs), {CLEAN, *MODEL, *USERS}, ["model"])
    assert lineage(capsys, uri, runs["model"], "--up") == ({"raw", "clean", "model"}, {CLEAN, *MODEL}, ["model"])
    assert lineage(capsys, uri, f"run:{runs['model']}", "--down")[0] == {"model", "evaluate", "deploy"}
    assert lineage(capsys, uri, runs["raw"])[1] == {CLEAN, *MODEL, *USERS}
    assert lineage(capsys, uri, runs["deploy"])[1] == {CLEAN, *MODEL, ("model", "model", "deploy")}


def test_a_depth_is_kept_and_said(uri, capsys):
    runs, _ = made(uri)
    assert lineage(capsys, uri, runs["deploy"], "--depth", "1")[0] == {"deploy", "model"}
    assert main(["lineage", runs["deploy"], "--depth", "1", "--tracking-uri", uri]) == 0
    assert "there is more: --depth 2 follows it further" in capsys.readouterr().err
    assert main(["lineage", runs["deploy"], "--depth", "3", "--tracking-uri", uri]) == 0
    assert "there is more" not in capsys.readouterr().err


def test_a_digest_leads_to_the_runs_that_made_it_and_else_to_those_that_were_given_it(uri, capsys):
    _, digests = made(uri)
    assert lineage(capsys, uri, digests["clean"])[2] == ["clean"]
    tracker = MLflowTracker(tracking_uri=uri)
    bought = Artifact(
        hashlib.sha256(uuid.uuid4().bytes).hexdigest(), 3, file="data", name="bought", address="s3://shop/data"
    )
    plan = {**PLAN, "root": {**PLAN["root"], "rows": bought.to_json()}}
    ref = open_run(tracker, make_job(f"buyer {uuid.uuid4().hex[:8]}", plan=plan))
    assert main(["lineage", bought.digest, "--tracking-uri", uri]) == 0
    shown = capsys.readouterr().out
    assert f"run {ref.run_id}" in shown
    assert f"    bought {bought.digest[:12]} by s3://shop/data\n" in shown


def test_a_registered_model_leads_to_its_run(uri, capsys):
    runs, _ = made(uri)
    name, client = f"digits-{uuid.uuid4().hex[:8]}", MlflowClient(uri)
    client.create_registered_model(name)
    version = client.create_model_version(name, "s3://bucket/model", runs["model"]).version
    client.set_registered_model_alias(name, "champion", version)
    for named in (f"models:/{name}@champion", f"models:/{name}/{version}"):
        assert lineage(capsys, uri, named)[2] == ["model"]
    assert main(["lineage", f"models:/{name}@none", "--tracking-uri", uri]) == 2
    assert f"models:/{name}@none" in capsys.readouterr().err


def test_it_is_text_for_people_and_a_picture_for_pages(uri, capsys):
    runs, digests = made(uri)
    assert main(["lineage", runs["model"], "--tracking-uri", uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"(succeeded, run {runs['model']})")
    assert lines[1:3] == [
        "  made from:",
        f"    clean {digests['clean'][:12]} by {lines[2].split()[3]} (succeeded, run {runs['clean']})",
    ]
    assert lines[3].startswith(f"      raw {digests['raw'][:12]} by raw-")
    assert lines[4].endswith(", as above")
    assert lines[5] == "  used by:"
    assert main(["lineage", runs["model"], "--tracking-uri", uri, "-o", "mermaid"]) == 0
    first, *nodes = capsys.readouterr().out.splitlines()
    assert first == "flowchart LR"
    assert all(re.fullmatch(r'  n\d\["[\w. -]+<br>[\w-]+-1<br>succeeded"\]', node) for node in nodes[:5]), nodes
    assert sum("-->" in node for node in nodes) == 5


@pytest.mark.stores("sqlite")
def test_what_is_nowhere_is_said_with_the_store(uri, capsys):
    made(uri)
    for what in ("0" * 32, "f" * 64, "nothing-1"):
        assert main(["lineage", what, "--tracking-uri", uri]) == 2
        assert "sqlite:" in capsys.readouterr().err
    assert main(["lineage", "last", "--depth", "0", "--tracking-uri", uri]) == 2
    assert "--depth 0: at least 1 run is followed" in capsys.readouterr().err


@pytest.mark.stores("sqlite")
def test_a_source_that_was_deleted_stays_in_the_lineage_by_its_id(uri, capsys):
    tracker, word = MLflowTracker(tracking_uri=uri), uuid.uuid4().hex[:8]
    gone = Artifact(
        "ab" * 32, 3, name='a "quoted" <name>', file="x", output="x", job="maker-1", run_id=uuid.uuid4().hex
    )
    plan = {**PLAN, "root": {**PLAN["root"], "rows": gone.to_json()}}
    ref = open_run(tracker, make_job(f"orphan {word}", plan=plan))
    assert main(["lineage", ref.run_id, "--tracking-uri", uri]) == 0
    assert f"by {gone.run_id}" in capsys.readouterr().out
    assert main(["lineage", ref.run_id, "--tracking-uri", uri, "-o", "mermaid"]) == 0
    shown = capsys.readouterr().out
    assert f'["{gone.run_id}"]' in shown
    assert "<name>" not in shown
