"""The description and the source of a run: from the task and its code, and never over what a person has written."""

from __future__ import annotations

import dataclasses
import re

import pytest
from mlflow import MlflowClient
from tracking_cases import make_job, make_package, open_run

from nemo_airflow.job import JobState, JobStatus
from nemo_airflow.tracking.forges import commit_page, repository_page
from nemo_airflow.tracking.mlflow import MLflowTracker

COMMIT = "c" * 40


def tags_of(uri: str, run_id: str) -> dict[str, str]:
    return dict(MlflowClient(uri).get_run(run_id).data.tags)


def test_a_run_is_described_by_its_task_and_the_parent_by_the_dag(tracker: MLflowTracker, uri: str) -> None:
    package = make_package(origin="git@github.com:team/code.git", branch="main")
    job = make_job("described-by-its-task", description="Trains a **net**.", run_description="Weekly.", package=package)
    ref = open_run(tracker, job)
    assert tags_of(uri, ref.run_id)["mlflow.note.content"] == (
        "Trains a **net**.\n\n[Task in Airflow](http://airflow/task) · "
        f"[Code at cccccccc](https://github.com/team/code/commit/{COMMIT})"
    )
    assert tags_of(uri, ref.parent_id)["mlflow.note.content"] == "Weekly."


def test_a_description_that_a_person_has_edited_stays(tracker: MLflowTracker, uri: str) -> None:
    job = make_job("edited", description="ours", run_description="ours")
    ref = open_run(tracker, job)
    for run_id in (ref.run_id, ref.parent_id):
        MlflowClient(uri).set_tag(run_id, "mlflow.note.content", "theirs")
    tracker.ended(ref, JobStatus(JobState.FAILED))
    assert open_run(tracker, job).run_id == ref.run_id
    second = open_run(tracker, dataclasses.replace(job, key=f"{job.key}-2"), parent=f"parent of {job.key}")
    assert second.parent_id == ref.parent_id
    assert {tags_of(uri, run_id)["mlflow.note.content"] for run_id in (ref.run_id, ref.parent_id)} == {"theirs"}


def test_a_description_of_any_length_is_kept_with_its_links(tracker: MLflowTracker, uri: str) -> None:
    note = tags_of(uri, open_run(tracker, make_job("long-note", description="x" * 9000)).run_id)["mlflow.note.content"]
    assert note.startswith("xxx")
    assert note.endswith("\n\n[Task in Airflow](http://airflow/task)")


def test_a_run_has_its_branch_and_a_source_that_mlflows_page_links(tracker: MLflowTracker, uri: str) -> None:
    package = make_package(origin="ssh://git@gitlab.example:2222/a/code.git", branch="fix/it")
    tags = tags_of(uri, open_run(tracker, make_job("linked", package=package)).run_id)
    assert {name: value for name, value in tags.items() if name.startswith(("mlflow.source", "mlflow.project"))} == {
        "mlflow.source.name": "https://gitlab.example/a/code",
        "mlflow.source.type": "PROJECT",
        "mlflow.source.git.commit": COMMIT,
        "mlflow.source.git.branch": "fix/it",
        "mlflow.source.git.repoURL": "ssh://git@gitlab.example:2222/a/code.git",
        "mlflow.project.entryPoint": "retrain.train",
    }
    # As in getGitRegex() of MLflow's pages: what does not match has no link.
    assert re.match(r"(.*?[@/][^?]*git.*?)[:/]([^#]+)(?:#(.*))?", tags["mlflow.source.name"])


def test_code_without_a_remote_has_no_source_link(tracker: MLflowTracker, uri: str) -> None:
    tags = tags_of(uri, open_run(tracker, make_job("unlinked", package=make_package(origin=""))).run_id)
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("retrain.train", "JOB")
    assert not {"mlflow.source.git.repoURL", "mlflow.source.git.branch"} & set(tags)


@pytest.mark.parametrize(
    ("origin", "page"),
    [
        ("https://github.com/team/code.git", f"https://github.com/team/code/commit/{COMMIT}"),
        ("git@github.com:team/code.git", f"https://github.com/team/code/commit/{COMMIT}"),
        ("ssh://git@git.example:2222/team/code.git", f"https://git.example/team/code/commit/{COMMIT}"),
        ("http://forge.example:3000/team/code", f"http://forge.example:3000/team/code/commit/{COMMIT}"),
        ("https://gitlab.example/a/b/code.git", f"https://gitlab.example/a/b/code/-/commit/{COMMIT}"),
        ("git@bitbucket.org:team/code.git", f"https://bitbucket.org/team/code/commits/{COMMIT}"),
        ("/srv/git/code.git", ""),
        ("../code", ""),
        ("host.example:code", ""),
        ("file:///srv/code.git", ""),
        ("https://[bad/code", ""),
        ("", ""),
    ],
)
def test_the_page_of_a_commit_follows_from_the_remote(origin: str, page: str) -> None:
    assert commit_page(origin, COMMIT) == page
    assert bool(repository_page(origin)) == bool(page)
    assert commit_page(origin, "") == ""
