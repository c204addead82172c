"""Data sets that a job names: what is said of each, and that no login in an address is."""

import json

import pytest

from nemo_airflow import log_input
from nemo_airflow.runner.digests import digest_of

JOB = """
from nemo_airflow import log_input

def read(path):
    log_input(path)
    log_input(path, "renamed", digest="v2", context="training")
    for source in {sources!r}:
        log_input(source)
"""

SOURCES = {
    "s3://bucket/data/train/": ("train", "s3", {"uri": "s3://bucket/data/train/"}),
    "https://ann:secret@host.invalid/a.csv?rows=10": ("a.csv", "http", {"url": "https://host.invalid/a.csv?rows=10"}),
    "https://host.invalid/b.csv?X-Amz-Signature=secret": ("b.csv", "http", {"url": "https://host.invalid/b.csv"}),
    "gs://bucket": ("bucket", "gs", {"uri": "gs://bucket"}),
}


def test_data_sets_that_a_job_names_are_on_its_stream(run, tmp_path):
    (tmp_path / "rows.csv").write_text("1,2")
    ran = run("read", code=JOB.format(sources=list(SOURCES)), arguments={"path": str(tmp_path / "rows.csv")})
    assert ran.code == 0, ran.end["error"]
    found = ran.records("input")
    local = {"uri": str(tmp_path / "rows.csv")}
    assert [(each["name"], each["source_type"], json.loads(each["source"])) for each in found] == [
        ("rows.csv", "local", local),
        ("renamed", "local", local),
        *SOURCES.values(),
    ]
    assert found[0]["digest"] == digest_of(str(tmp_path / "rows.csv"))
    assert (found[1]["digest"], found[1]["context"]) == ("v2", "training")
    assert all(each["digest"] for each in found)
    assert "secret" not in str(ran.items)


def test_a_data_set_that_is_not_there_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match="give a path where the job runs, or an address such as s3://"):
        log_input(tmp_path / "missing")
    log_input("s3://bucket/train")  # outside a job
