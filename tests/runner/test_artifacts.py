"""What ``artifact()`` makes of files, folders and addresses, in a job and outside of one."""

import json
import os
from pathlib import Path

import pytest

from nemo_airflow.runner import Artifact, artifact, fetch_outputs
from nemo_airflow.runner.digests import digest_of
from nemo_airflow.runner.results import plain


@pytest.fixture
def in_a_job(monkeypatch, tmp_path):
    """Where a job's process finds itself; returns the folder of its outputs."""
    (tmp_path / "job" / "work").mkdir(parents=True)
    outputs = tmp_path / "job" / "outputs"
    monkeypatch.chdir(tmp_path / "job" / "work")
    monkeypatch.setenv("NEMO_AIRFLOW_EVENTS", str(tmp_path / "events"))
    monkeypatch.setenv("NEMO_AIRFLOW_OUTPUT_DIR", str(outputs))
    monkeypatch.setenv("NEMO_AIRFLOW_KEY", "job-1")
    monkeypatch.setenv("NEMO_AIRFLOW_RUN", "run-1")
    return outputs


def write(path, text="text"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_from_elsewhere_is_linked_among_the_outputs(in_a_job, tmp_path):
    made = artifact(write(tmp_path / "model.bin"))
    assert (made.file, made.output, made.kind, made.size) == ("model.bin", "model.bin", "file", 4)
    assert (made.job, made.run_id) == ("job-1", "run-1")
    assert (in_a_job / "model.bin").samefile(tmp_path / "model.bin")
    assert made.path().read_text() == Path(made).read_text() == "text"


def test_what_is_among_the_outputs_stays_where_it_is(in_a_job):
    folder = write(in_a_job / "checkpoints" / "1" / "a.txt").parent
    assert artifact(folder).output == "checkpoints/1"
    assert artifact(folder / "a.txt").output == "checkpoints/1/a.txt"
    assert sorted(os.listdir(in_a_job)) == ["checkpoints"]


def test_two_artifacts_of_one_name_are_both_kept_and_the_same_content_once(in_a_job, tmp_path):
    first, other = write(tmp_path / "a" / "m.bin", "one"), write(tmp_path / "b" / "m.bin", "two")
    assert artifact(first).output == artifact(first).output == "m.bin"
    made = artifact(other)
    assert made.output == f"{made.digest[:16]}/m.bin"
    assert (in_a_job / made.output).read_text() == "two"
    assert artifact(other).output == made.output


def folder_of(root):
    write(root / "sub" / "a.txt")
    write(root / "b.sh").chmod(0o755)
    (root / "link").symlink_to("sub/a.txt")
    return root


def test_a_folders_digest_knows_neither_its_name_nor_times_nor_empty_folders(tmp_path):
    one, two = folder_of(tmp_path / "one"), folder_of(tmp_path / "two")
    (two / "empty").mkdir()
    os.utime(two / "b.sh", (1, 1))
    assert digest_of(str(one)) == digest_of(str(two))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "b.sh").chmod(0o644),
        lambda root: (root / "sub" / "a.txt").write_text("next"),
        lambda root: (root / "b.sh").rename(root / "c.sh"),
        lambda root: (root / "link").unlink() or (root / "link").symlink_to("b.sh"),
        lambda root: (root / "link").unlink() or (root / "link").write_text("text"),
    ],
)
def test_a_folders_digest_is_another_after_any_change_of_its_content(tmp_path, change):
    root = folder_of(tmp_path / "one")
    before = digest_of(str(root))
    change(root)
    assert digest_of(str(root)) != before


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: (folder / "link").symlink_to("gone"), "link in .* links to gone, which is not there"),
        (lambda folder: (folder / "link").symlink_to("../../x"), "link in .* which is (not there|outside)"),
        (lambda folder: (folder / "up").symlink_to(".."), "up in .* links to .., which is outside"),
        (lambda folder: (folder / "link").symlink_to("/etc/hostname"), "a link to the absolute path /etc/hostname"),
        (lambda folder: os.mkfifo(folder / "pipe"), "pipe in .* is neither a file, a folder nor a link"),
    ],
)
def test_a_folder_with_what_cannot_travel_is_refused_by_name(in_a_job, tmp_path, make, says):
    folder = write(tmp_path / "data" / "a.txt").parent
    make(folder)
    with pytest.raises(ValueError, match=says):
        artifact(folder)


def test_what_is_no_artifact_is_refused_in_one_line(in_a_job, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"artifact: .*/gone does not exist"):
        artifact("gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is empty"):
        artifact(tmp_path / "empty")
    write(in_a_job / "a.txt")
    with pytest.raises(ValueError, match="not the whole output directory"):
        artifact(in_a_job)
    with pytest.raises(ValueError, match="give s3://, gs:// or abfs://"):
        artifact("https://host/file")


def test_an_address_is_an_artifact_that_nobody_has_read(in_a_job):
    made = artifact("s3://aws@bucket/models/7/")
    assert (made.kind, made.file, made.digest) == ("folder", "7", "")
    assert artifact("gs://bucket/model.bin").kind == "file"
    assert Artifact.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_an_artifact_anywhere_in_a_result_is_named_by_its_place(in_a_job, tmp_path):
    made = artifact(write(tmp_path / "m.bin"))
    result = plain({"model": made, "all": [made], "n": {"deep": (made,)}}, [])
    names = [Artifact.from_json(each).name for each in (result["model"], result["all"][0], result["n"]["deep"][0])]
    assert names == ["model", "all[0]", "n.deep[0]"]
    assert Artifact.from_json(plain(made, [])).name == "m.bin"
    assert Artifact.from_json(result["model"]) == Artifact.from_json({**made.to_json()["_artifact_"], "name": "model"})


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"digest": "abc", "file": "x"},
        {"digest": "0" * 64, "file": "../x"},
        {"digest": "0" * 64, "file": ""},
        {"digest": "0" * 64, "file": "x", "kind": "device"},
        {"digest": "0" * 64, "file": "x", "size": "1"},
        {"digest": "0" * 64, "file": "x", "more": "1"},
        {"address": "file:///etc/passwd", "file": "passwd"},
    ],
)
def test_a_form_that_is_no_artifacts_is_refused(form):
    with pytest.raises(ValueError, match="is not an artifact"):
        Artifact.from_json({"_artifact_": form})


def test_outputs_of_a_run_that_cannot_be_fetched_are_refused_with_what_to_do_instead(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(RuntimeError, match=r"\$MLFLOW_TRACKING_URI is not set: give the job Artifact\.from_run"):
        fetch_outputs("0" * 32)
