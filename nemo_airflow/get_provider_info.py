"""This provider's metadata for Airflow: operator, decorator, trigger, hooks, connection and links."""

from __future__ import annotations

from typing import Any

from nemo_airflow.connection_forms import connection_types
from nemo_airflow.options import config_section


def get_provider_info() -> dict[str, Any]:
    """Returns the provider's metadata in the form of Airflow's ``provider_info.schema.json``."""
    name = "NeMo Airflow"
    return {
        "package-name": "nemo-airflow",
        "name": name,
        "description": "Run machine-learning experiments: configure once, run anywhere, keep everything.",
        "integrations": [{"integration-name": name, "external-doc-url": "", "tags": ["software"]}],
        "operators": [{"integration-name": name, "python-modules": ["nemo_airflow.operators.run"]}],
        "triggers": [{"integration-name": name, "python-modules": ["nemo_airflow.triggers.run"]}],
        "hooks": [
            {
                "integration-name": name,
                "python-modules": [f"nemo_airflow.hooks.{each}" for each in ("back_ends", "mlflow", "packaging")],
            }
        ],
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
        "extra-links": ["nemo_airflow.operators.links.MLflowRunLink"],
        "connection-types": connection_types(),
    }
