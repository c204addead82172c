"""This provider's metadata for Airflow: all that ``airflow providers`` lists of it."""

from __future__ import annotations

from typing import Any

from nemo_airflow.connection_forms import connection_types
from nemo_airflow.options import config_section

_WORKS_WITH = (
    ("MLflow", "https://mlflow.org/"),
    ("Slurm", "https://slurm.schedmd.com/"),
    ("Ray", "https://www.ray.io/"),
    ("SkyPilot", "https://docs.skypilot.co/"),
    ("Apprise", "https://github.com/caronc/apprise"),
    ("OpenLineage", "https://openlineage.io/"),
)
"""Systems that Airflow's list of integrations may show with this provider, and where each is described."""


def get_provider_info() -> dict[str, Any]:
    """Returns the provider's metadata in the form of Airflow's ``provider_info.schema.json``."""
    name = "NeMo Airflow"
    return {
        "package-name": "nemo-airflow",
        "name": name,
        "description": "Run machine-learning experiments: configure once, run anywhere, keep everything.",
        "integrations": [
            {
                "integration-name": name,
                "external-doc-url": "https://github.com/google/fiddle",
                "logo": "/docs/img/logo.svg",
                "how-to-guide": [
                    f"/docs/{page}.md" for page in ("operator", "executors", "tracking", "reproduce", "provider")
                ],
                "tags": ["software"],
            },
            *({"integration-name": each, "external-doc-url": url, "tags": ["software"]} for each, url in _WORKS_WITH),
        ],
        "operators": [
            {
                "integration-name": name,
                "python-modules": [f"nemo_airflow.operators.{each}" for each in ("run", "reproduce")],
            }
        ],
        "triggers": [
            {"integration-name": name, "python-modules": ["nemo_airflow.triggers.reuse", "nemo_airflow.triggers.run"]}
        ],
        "hooks": [
            {
                "integration-name": name,
                "python-modules": [f"nemo_airflow.hooks.{each}" for each in ("back_ends", "mlflow", "packaging")],
            }
        ],
        "cli": ["nemo_airflow.cli.airflow_commands.get_commands"],
        "config": config_section(),
        "task-decorators": [{"name": "nemo", "class-name": "nemo_airflow.decorators.nemo.nemo_task"}],
        "asset-uris": [
            {
                "schemes": ["mlflow"],
                "handler": "nemo_airflow.assets.mlflow.sanitize_uri",
                "factory": "nemo_airflow.assets.mlflow.model_asset",
                "to_openlineage_converter": "nemo_airflow.assets.mlflow.convert_asset_to_openlineage",
            }
        ],
        "notifications": ["nemo_airflow.notifications.NemoRunNotifier"],
        "extra-links": [
            f"nemo_airflow.operators.links.{each}"
            for each in ("MLflowRunLink", "JobLink", "ComparisonLink", "BackEndLink")
        ],
        "connection-types": connection_types(),
    }
