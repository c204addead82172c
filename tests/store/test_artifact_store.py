"""Artifacts in the stores of this machine and of several: kept once, fetched by digest, refused where damaged."""

import os

import boto3
import pytest

from nemo_airflow.artifacts import archives_for, fetch_artifact, keep_artifacts
from nemo_airflow.artifacts.keeping import put_here, settle
from nemo_airflow.cli import main
from nemo_airflow.exceptions import ArtifactError, StoreError
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.runner import artifact
from nemo_airflow.runner.artifacts import read_artifact
from nemo_airflow.runner.digests import digest_of
from nemo_airflow.store import open_store
from nemo_airflow.store.collection import collect


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Moves this process to a machine of that name, with a store of its own."""

    def move(name, shared=""):
        monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / name))
        monkeypatch.setenv("NEMO_AIRFLOW_STORE", shared)

    return move


def made_in(folder, **fields):
    """Returns what a job returned that made a file and a folder, whose outputs are in a folder."""
    (folder / "data" / "sub").mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights" * 100_000)
    for number in range(20):
        (folder / "data" / "sub" / f"{number}.txt").write_text(f"{number}\n" * number)
    (folder / "data" / "latest").symlink_to("sub/1.txt")
    found = {name: read_artifact(str(folder / name)) for name in ("model.bin", "data")}
    return {
        name: {"_artifact_": {**each.to_json()["_artifact_"], "name": name, "output": name, "job": "j", **fields}}
        for name, each in found.items()
    }


def test_an_artifact_of_one_machine_is_fetched_on_another_through_the_shared_store(machine, tmp_path):
    machine("worker", str(tmp_path / "shared"))
    result = keep_artifacts(made_in(tmp_path / "outputs"), "j", tmp_path / "outputs")
    model, data = (Artifact.from_json(result[name]) for name in ("model.bin", "data"))
    assert model.address == data.address == str(tmp_path / "shared")
    machine("other", str(tmp_path / "shared"))
    archives = archives_for({"version": 1, "root": {"a": result["model.bin"], "b": [result["data"]]}})
    assert [archive.format for archive in archives] == ["file", "tar.gz"]
    for given in (model, data):
        assert digest_of(str(fetch_artifact(given, tmp_path / "fetched"))) == given.digest
    assert (tmp_path / "fetched" / "data" / "latest").is_symlink()


def test_what_is_kept_already_is_neither_read_nor_sent_again(machine, tmp_path):
    machine("worker", str(tmp_path / "shared"))
    result = made_in(tmp_path / "outputs")
    kept = keep_artifacts(result, "j", tmp_path / "outputs")
    blobs = {path: path.stat().st_ino for path in (tmp_path / "shared" / "blobs").rglob("*") if path.is_file()}
    (tmp_path / "outputs" / "model.bin").unlink()  # not looked at: the store has that content
    assert keep_artifacts(result, "j", tmp_path / "outputs") == kept
    assert {path: path.stat().st_ino for path in (tmp_path / "shared" / "blobs").rglob("*") if path.is_file()} == blobs


def test_only_what_the_job_made_itself_is_looked_for_among_its_outputs(machine, tmp_path):
    machine("worker")
    result = made_in(tmp_path / "outputs")
    assert keep_artifacts(result, "another job", tmp_path / "nowhere") == result
    with pytest.raises(ArtifactError, match=r"'model.bin' .* is not among the outputs that arrived here"):
        keep_artifacts(result, "j", tmp_path / "nowhere")


def test_another_content_than_the_job_said_is_not_kept(machine, tmp_path):
    machine("worker")
    result = made_in(tmp_path / "outputs")
    (tmp_path / "outputs" / "data" / "more.txt").write_text("later")
    with pytest.raises(ArtifactError, match="is not what arrived here"):
        keep_artifacts({"data": result["data"]}, "j", tmp_path / "outputs")


def test_a_damaged_copy_in_the_shared_store_is_refused_in_one_line(machine, tmp_path):
    machine("worker", str(tmp_path / "shared"))
    result = keep_artifacts(made_in(tmp_path / "outputs"), "j", tmp_path / "outputs")
    for path in (tmp_path / "shared" / "blobs").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    machine("other", str(tmp_path / "shared"))
    with pytest.raises(StoreError, match="is damaged and was deleted"):
        fetch_artifact(Artifact.from_json(result["model.bin"]), tmp_path / "fetched")


def test_a_collection_spares_the_artifacts_that_are_named(machine, tmp_path):
    machine("worker", str(tmp_path / "shared"))
    result = keep_artifacts(made_in(tmp_path / "outputs"), "j", tmp_path / "outputs")
    model = Artifact.from_json(result["model.bin"])
    garbage = collect(open_store(str(tmp_path / "shared")), older_than=7200, keep={model.digest}, later=9000)
    assert [entry.name for entry in garbage.records] == [f"packages/{Artifact.from_json(result['data']).digest}.tar.gz"]
    machine("other", str(tmp_path / "shared"))
    assert fetch_artifact(model, tmp_path / "fetched").stat().st_size == model.size


def test_what_a_task_fetched_is_deleted_once_nobody_wants_it_and_fetched_again(machine, tmp_path, capsys):
    machine("worker")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("1 2 3")
    kept = put_here(tmp_path / "data")
    path = kept.path()
    assert main(["store", "gc", "--older-than", "1", "--no-keep-runs"]) == 0
    assert (path / "a.txt").exists()
    os.utime(path.parent, (0, 0))
    assert main(["store", "gc", "--older-than", "1", "--no-keep-runs"]) == 0
    assert "1 files of artifacts that were fetched, 5 bytes freed" in capsys.readouterr().out
    assert not (path / "a.txt").exists()
    assert (kept.path() / "a.txt").read_text() == "1 2 3"


def test_an_object_of_a_bucket_is_an_artifact_by_its_address(machine, s3, tmp_path, monkeypatch, capsys):
    machine("worker")
    from airflow.sdk import Connection

    info = Connection.get("store_s3").extra_dejson
    client = boto3.client("s3", **info, aws_access_key_id="key", aws_secret_access_key="hidden-secret")
    for name in ("models/7/a.txt", "models/7/sub/b.txt", "models/77/other.txt"):
        client.put_object(Bucket="bucket", Key=name, Body=name.encode())
    address = s3.replace("bucket", "bucket/models/7/")
    folder = settle(artifact(address))
    assert (folder.kind, folder.address, folder.size) == ("folder", address, 32)
    path = fetch_artifact(folder, tmp_path / "fetched")
    assert (path / "sub" / "b.txt").read_text() == "models/7/sub/b.txt"
    assert sorted(each.name for each in path.rglob("*.txt")) == ["a.txt", "b.txt"]
    assert main(["fetch", f"{address}a.txt", "--into", str(tmp_path / "by hand")]) == 0
    assert (tmp_path / "by hand" / "a.txt").read_text() == "models/7/a.txt"
    assert str(tmp_path / "by hand" / "a.txt") in capsys.readouterr().out
    with pytest.raises(ArtifactError, match="models/8 is not there"):
        settle(artifact(s3.replace("bucket", "bucket/models/8")))


def test_fetch_never_overwrites_and_says_what_it_does_not_know(machine, tmp_path, capsys):
    machine("worker")
    (tmp_path / "model.bin").write_text("weights")
    kept = put_here(tmp_path / "model.bin")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "model.bin").write_text("others")
    with pytest.raises(ArtifactError, match=r"is there already and is not artifact 'model\.bin'"):
        fetch_artifact(kept, tmp_path / "there")
    assert main(["fetch", "model"]) == 2
    assert "'model' names no artifact: give RUN_ID/NAME" in capsys.readouterr().err
