"""What one job returns as an artifact arrives in another: the executor brings it from the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nemo_airflow.artifacts.keeping import archives_for, keep_artifacts
from nemo_airflow.executors.base import Driver
from nemo_airflow.job import FailureKind, Job
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.settings import packages_folder
from nemo_airflow.store import PackageStore
from nemo_airflow.testing.conformance.base import ConformanceCases, Finished

_FILES = 1000
_LARGE = 24_000_000
"""Bytes of a file that is more than goes with the job itself on any back-end."""


class ArtifactCases(ConformanceCases):
    """Artifacts come from jobs of the executor, and go to its jobs, by way of the store alone.

    An executor that brings what is in the store brings what came from any other: all pairs work if each does both.
    """

    def test_what_a_job_returns_as_artifacts_arrives_whole_in_another(
        self, driver: Driver, run: Callable[..., Finished], make: Callable[..., Job], tmp_path: Path
    ) -> None:
        made = run("return_artifacts", files=_FILES, size=_LARGE)
        assert made.outcome.succeeded, made.outcome.message
        self.collect(driver, made.handle, tmp_path)
        result = keep_artifacts(made.outcome.result, made.handle.key, tmp_path)
        large, data = (Artifact.from_json(result[name]) for name in ("large", "data"))
        assert (large.kind, large.size, data.kind) == ("file", _LARGE, "folder")
        arguments = {"large": result["large"], "others": {"data": [result["data"]]}}
        plan = make("digest_artifacts", **arguments).plan
        inputs = archives_for(plan)
        taken = run("digest_artifacts", **arguments, job={"inputs": inputs})
        assert taken.outcome.result == [large.digest, data.digest, "part-0/0.txt", "part-0", True], taken.outcome
        assert any(f"artifact 'data' (folder, {data.digest[:12]}" in line for line in taken.lines)

    def test_an_artifact_that_is_damaged_on_its_way_fails_the_job_in_one_line(
        self, run: Callable[..., Finished], make: Callable[..., Job]
    ) -> None:
        store = PackageStore(packages_folder())
        digest = "0" * 64
        with store.write(digest, "file") as file:
            file.write(b"other bytes")
        given = Artifact(digest, 11, file="model.bin", name="model").to_json()
        inputs = archives_for(make("echo", value=given).plan)
        ended = run("echo", value=given, job={"inputs": inputs}).outcome
        assert ended.status.failure is FailureKind.ARTIFACT
        assert "artifact 'model' (file, 000000000000, 11 bytes) is damaged" in ended.message
        assert not ended.traceback
