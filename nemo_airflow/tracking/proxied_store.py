"""An S3-compatible store behind an MLflow server whose clients cannot reach it.

Of an ``--artifacts-destination s3://`` MLflow's server hands out signed addresses to its clients. Where the store is in
the server's own network alone, as that of ``docker/compose.yaml``, a client tries for ten minutes to reach an address
that does not exist for it, and fails. Of ``proxied-s3://`` the server passes all bytes on itself.
"""

from __future__ import annotations

from typing import Any

from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository


class ProxiedS3(ArtifactRepository):  # type: ignore[misc]  # mlflow has no types
    """A bucket without what MLflow asks for before it lets clients go to the store themselves.

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
