"""The files of a run, as its page lists and reads them: from MLflow's server and from a folder."""

import pytest
from tracking_cases import make_job, open_run

from nemo_airflow.exceptions import SettingsError, TrackingError
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.mlflow.files import PIECE, RunFiles, check_path
from nemo_airflow.tracking.mlflow.store import StoredFile

LARGE = bytes(range(256)) * (3 * PIECE // 256)


@pytest.fixture
def files(uri, tmp_path):
    tracker = MLflowTracker(tracking_uri=uri)
    ref = open_run(tracker, make_job("files"))
    tracker.documents(ref, {"notes/with space.txt": "é", "notes/deep/a.txt": "a"})
    large = tmp_path / "large.bin"
    large.write_bytes(LARGE)
    tracker.artifacts(ref, {"large.bin": large})
    return RunFiles(ref.run_id, uri)


def test_folders_are_listed_and_files_are_read_in_pieces(files):
    top = files.in_folder()
    assert [file.path for file in top if file.is_folder] == ["nemo_airflow", "notes"]
    assert StoredFile("large.bin", len(LARGE)) in top
    assert files.in_folder("notes") == [
        StoredFile("notes/deep", is_folder=True),
        StoredFile("notes/with space.txt", 2),
    ]
    assert files.in_folder("nothing") == []
    assert files.find("notes/deep/a.txt") == StoredFile("notes/deep/a.txt", 1)
    assert files.find("notes/deep/b.txt") is None
    assert files.beginning("notes/with space.txt", 100).decode() == "é"
    assert files.beginning("large.bin", 1000) == LARGE[:1000]
    pieces = list(files.pieces("large.bin"))
    assert len(pieces) > 1
    assert b"".join(pieces) == LARGE
    with pytest.raises(TrackingError):
        files.beginning("notes/deep/b.txt", 1)


@pytest.mark.parametrize(
    "path",
    ["..", "../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a\\..\\b", "%2e%2e/x", "a/%252e%252e/x", "%2Fetc/passwd",
     "..%5cx", "file:///etc/passwd", "a\0b", "a/"],
)  # fmt: skip
def test_no_path_leads_out_of_a_run(path):
    with pytest.raises(SettingsError, match="is not the path of a file"):
        check_path(path)


def test_the_files_of_a_logged_model_are_below_its_folder(uri, tmp_path):
    tracker = MLflowTracker(tracking_uri=uri)
    ref = open_run(tracker, make_job("files"))
    tracker.model(ref, "net", "models/net")
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"1234")
    tracker.artifacts(ref, {"models/net/data/weights.bin": weights})
    files = RunFiles(ref.run_id, uri)
    assert StoredFile("models", is_folder=True) in files.in_folder()
    assert files.in_folder("models") == [StoredFile("models/net", is_folder=True)]
    assert files.in_folder("models/net") == [StoredFile("models/net/data", is_folder=True)]
    assert files.beginning("models/net/data/weights.bin", 10) == b"1234"
