"""What OpenLineage is told of a task: the artifacts that its job was given and made, its code, config and back-end.

Methods by the names that Airflow's provider for OpenLineage asks operators for, which calls them only where it is
installed and configured. It does so in a process or thread of its own, which may not talk to Airflow: what is told is
read before, where the task ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nemo_airflow.artifact_references import find_references
from nemo_airflow.follow import Outcome
from nemo_airflow.language.artifact import Artifact

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

_NAMESPACE = "nemo-airflow"
"""Of what no address outside Airflow names; each has its run, or its job, in its name."""

FACET = "nemo_airflow"
"""Name of the run's facet."""

_SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet"


@dataclasses.dataclass(frozen=True)
class Told:
    """What is told of a job.

    Attributes:
        record: What its task has left in Airflow: :meth:`Submission._announce`.
        outcome: How it ended; None while it has not.
    """

    record: Mapping[str, Any]
    outcome: Outcome | None = None


class EmitsLineage:
    """The part of an operator that OpenLineage asks."""

    inlets: Any
    outlets: Any
    _told: Told | None = None

    def _note_lineage(self, ti: Any, outcome: Outcome) -> None:
        """Notes what is to be told of the job, which any process of the task may have submitted."""
        from airflow.sdk.listener import get_listener_manager

        if get_listener_manager().has_listeners:
            record = ti.xcom_pull(task_ids=ti.task_id, key="nemo_job", map_indexes=ti.map_index)
            self._told = Told(record if isinstance(record, Mapping) else {}, outcome)

    def get_openlineage_facets_on_start(self) -> OperatorLineage:
        """Tells of what the DAG's author has named; the job is not there yet."""
        return self._lineage(None, None)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage:
        """Tells of the job and of what it was given and made."""
        return self._lineage(self._told, task_instance)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage:
        """Tells of the job and of what it was given."""
        return self._lineage(self._told, task_instance)

    def _lineage(self, told: Told | None, task_instance: Any) -> OperatorLineage:
        from airflow.providers.openlineage.extractors import OperatorLineage
        from airflow.providers.openlineage.extractors.manager import ExtractorManager

        record = told.record if told is not None else {}
        lineage = OperatorLineage()
        ExtractorManager().extract_inlets_and_outlets(lineage, self, task_instance)
        lineage.inputs += _datasets(find_references(record.get("inputs") or ()))
        if told is not None:
            lineage.run_facets = {FACET: _run_facet(told)}
            lineage.job_facets = _job_facets(record.get("package") or {})
            if told.outcome is not None and told.outcome.succeeded:
                lineage.outputs += _datasets(find_references(told.outcome.result))
        return lineage


def _datasets(artifacts: Iterable[Artifact]) -> list[Any]:
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import dataset_version_dataset

    found = []
    for each in artifacts:
        namespace, name = _name_artifact(each)
        version = {"version": dataset_version_dataset.DatasetVersionDatasetFacet(each.digest)} if each.digest else {}
        found.append(Dataset(namespace=namespace, name=name, facets=version))
    return found


def _name_artifact(artifact: Artifact) -> tuple[str, str]:
    """Returns namespace and name of an artifact; the same for the job that made it and for one that it is given to."""
    maker = artifact.run_id or artifact.job
    if maker or not artifact.address:
        return _NAMESPACE, f"{maker or 'artifacts'}/{artifact.name or artifact.file}"
    parts = urlsplit(artifact.address)
    return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/") or "/"


def _run_facet(told: Told) -> Any:
    import attr
    from openlineage.client.generated.base import RunFacet

    @attr.define
    class NemoAirflowRunFacet(RunFacet):  # type: ignore[misc] # of a library that may not be there
        key: str
        backEnd: str
        backEndId: str
        cluster: str
        configDigest: str
        packageDigest: str
        commit: str
        dirty: bool
        runId: str
        runUrl: str
        failure: str

        @staticmethod
        def _get_schema() -> str:
            return _SCHEMA

    record, outcome = told.record, told.outcome
    handle, package, run = (record.get(name) or {} for name in ("handle", "package", "run"))
    failed = outcome is not None and not outcome.succeeded
    return NemoAirflowRunFacet(
        key=str(record.get("key", "")),
        backEnd=str(handle.get("kind", "")),
        backEndId=str(handle.get("id", "")),
        cluster=str(handle.get("cluster", "")),
        configDigest=str(record.get("plan_digest", "")),
        packageDigest=str(package.get("digest", "")),
        commit=str(package.get("commit", "")),
        dirty=bool(package.get("dirty")),
        runId=str(run.get("run_id", "")),
        runUrl=str(run.get("url", "")),
        failure=str((outcome.status.failure if failed and outcome is not None else "") or ""),
    )


def _job_facets(package: Mapping[str, Any]) -> dict[str, Any]:
    from openlineage.client.facet_v2 import source_code_location_job

    if not package.get("commit"):
        return {}
    origin = str(package.get("origin", ""))
    location = source_code_location_job.SourceCodeLocationJobFacet(
        type="git", url=origin, repoUrl=origin, version=str(package["commit"]), branch=str(package.get("branch", ""))
    )
    return {"sourceCodeLocation": location}
