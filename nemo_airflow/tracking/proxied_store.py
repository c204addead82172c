"""An S3-compatible store behind an MLflow server whose clients cannot reach it.

With ``--artifacts-destination s3://...`` MLflow's server sends its clients to the store, by signed addresses. Where
only the server reaches it, as in ``docker/compose.yaml``, a client retries such an address for ten minutes, and fails.
With ``proxied-s3://...`` all bytes pass through the server.
"""

from __future__ import annotations

from typing import Any

from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository


class ProxiedS3(ArtifactRepository):  # type: ignore[misc]  # mlflow has no types
    """A bucket of which MLflow gives no signed addresses, since this class does not offer to make any.

    Args:
        artifact_uri: ``proxied-s3://BUCKET[/PATH]``.
        others: What MLflow gives each repository besides.
    """

    def __init__(self, artifact_uri: str, *others: Any, **named: Any) -> None:
        super().__init__(artifact_uri, *others, **named)
        self._store = S3ArtifactRepository(artifact_uri.removeprefix("proxied-"))

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Uploads a file."""
        self._store.log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Uploads a folder."""
        self._store.log_artifacts(local_dir, artifact_path)

    def list_artifacts(self, path: str | None = None) -> list[Any]:
        """Lists the files and folders in a folder."""
        return self._store.list_artifacts(path)  # type: ignore[no-any-return]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._store._download_file(remote_file_path, local_path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Deletes a file or a folder."""
        self._store.delete_artifacts(artifact_path)
