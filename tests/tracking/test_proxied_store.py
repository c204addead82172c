"""The destination of an MLflow server whose clients cannot reach its store."""

import boto3
from mlflow.store.artifact.artifact_repo import MultipartDownloadMixin, MultipartUploadMixin
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from moto.server import ThreadedMotoServer


def test_clients_are_not_sent_to_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers the login, which is of this test alone
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", endpoint)
        for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "hidden"), ("DEFAULT_REGION", "us-east-1")):
            monkeypatch.setenv(f"AWS_{name}", value)
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="mlflow")
        store = get_artifact_repository("proxied-s3://mlflow/runs")
        assert isinstance(get_artifact_repository("s3://mlflow/runs"), MultipartDownloadMixin | MultipartUploadMixin)
        assert not isinstance(store, MultipartDownloadMixin | MultipartUploadMixin)

        (tmp_path / "a/b").mkdir(parents=True)
        (tmp_path / "a/b/model.bin").write_bytes(b"model")
        (tmp_path / "note.txt").write_text("a note")
        store.log_artifacts(str(tmp_path / "a"), "outputs")
        store.log_artifact(str(tmp_path / "note.txt"))
        assert [(found.path, found.is_dir) for found in store.list_artifacts()] == [
            ("note.txt", False),
            ("outputs", True),
        ]
        [found] = store.list_artifacts("outputs/b")
        assert (found.path, found.file_size) == ("outputs/b/model.bin", 5)
        into = store.download_artifacts("outputs", str(tmp_path))
        assert (tmp_path / "outputs/b/model.bin").read_bytes() == b"model", into
        store.delete_artifacts("outputs")
        assert [found.path for found in store.list_artifacts()] == ["note.txt"]
        assert [each["Key"] for each in client.list_objects_v2(Bucket="mlflow")["Contents"]] == ["runs/note.txt"]
    finally:
        server.stop()
