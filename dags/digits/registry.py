"""The versions of a model in MLflow's registry, and which of them is in service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from digits.promotion import Decision

ALIAS = "champion"
_ACCURACY = "held_out.accuracy"


@dataclass(frozen=True)
class Version:
    """A version of the model, and its accuracy on the held-out data."""

    version: str
    accuracy: float


class Registry:
    """One registered model.

    Args:
        client: MLflow's client.
        name: Name of the model; registered if needed.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client = client
        self._name = name

    def champion(self) -> Version | None:
        """Returns the version in service, or None."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_model_version_by_alias(self._name, ALIAS)
        except MlflowException as error:
            # MLflow's two error codes for a missing model and a missing alias.
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        # A number from a database, but a text from a server.
        return Version(str(found.version), float(found.tags[_ACCURACY]))

    def add(self, run_id: str, file: str, metrics: dict[str, float], decision: Decision) -> str:
        """Registers a file of a run as a new version, with the decision about it; returns its number."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self._name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self._client.get_run(run_id).info.artifact_uri}/{file}"
        tags = {f"held_out.{name}": str(value) for name, value in metrics.items()}
        made = self._client.create_model_version(
            self._name,
            source,
            run_id=run_id,
            tags={**tags, "promoted": str(decision.promote).lower(), "reason": decision.reason},
            description=decision.reason,
        )
        return str(made.version)

    def promote(self, version: str) -> None:
        """Puts a version into service."""
        self._client.set_registered_model_alias(self._name, ALIAS, version)
