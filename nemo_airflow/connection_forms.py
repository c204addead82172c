"""The types of connections of this project, and their forms in Airflow's web UI.

The form of a field is ``conn-fields`` of Airflow's ``provider.yaml``: a JSON schema, in which the format ``password``
hides a value. Airflow shows the forms without importing hooks.
"""

from __future__ import annotations

from typing import Any

_HOOKS = "nemo_airflow.hooks"


def connection_types() -> list[dict[str, Any]]:
    """Returns the types in the form of Airflow's ``provider_info.schema.json``."""
    return [_mlflow(), _slurm(), _ray(), _skypilot()]


def _mlflow() -> dict[str, Any]:
    return {
        "connection-type": "mlflow",
        "hook-name": "MLflow",
        "hook-class-name": f"{_HOOKS}.mlflow.MLflowHook",
        "ui-field-behaviour": {
            "hidden-fields": ["extra"],
            "relabeling": {"schema": "Protocol (http or https)", "password": "Password or token"},
            "placeholders": {"host": "mlflow.example, or https://mlflow.example/base"},
        },
        "conn-fields": {
            "token": _secret("Token"),
            "path": _text("Path", "Path of the server below its host."),
            "verify": _text("Check the certificate, or CA file", "true, false, or a file of authorities to trust."),
            "client_cert": _text("Client certificate", "A file with the client's own certificate and key."),
        },
    }


def _slurm() -> dict[str, Any]:
    return {
        "connection-type": "nemo_slurm",
        "hook-name": "NeMo cluster (Slurm)",
        "hook-class-name": f"{_HOOKS}.back_ends.SlurmHook",
        "ui-field-behaviour": {
            "hidden-fields": ["schema"],
            "relabeling": {"host": "Login node", "login": "User"},
            "placeholders": {"host": "login.cluster.example", "port": "22"},
        },
        "conn-fields": {
            "key_file": _text("Key file", "File of the private key, on each worker and triggerer."),
            "private_key": _secret("Private key", "The key itself, in place of a file."),
            "private_key_passphrase": _secret("Passphrase of the key"),
            "host_key": _text(
                "Host key", "The host's public key: ssh-ed25519 AAAA... Unless given, known_hosts counts."
            ),
            "known_hosts": _text("Known hosts", "A file in place of ~/.ssh/known_hosts."),
            "jump_conn_id": _text("Jump host", "Id of the connection of a host to go through."),
            "system_ssh": {
                "label": "Use the machine's own ssh",
                "schema": {"type": ["boolean", "null"]},
                "description": "For logins that only ssh itself can do: Kerberos, a hardware key, a second factor.",
            },
            "partition": _text("Partition for Test", "Test asks for a job there; executors name their own."),
            "account": _text("Account for Test", "Test asks for a job of it; executors name their own."),
        },
    }


def _ray() -> dict[str, Any]:
    return {
        "connection-type": "nemo_ray",
        "hook-name": "NeMo cluster (Ray)",
        "hook-class-name": f"{_HOOKS}.back_ends.RayHook",
        "ui-field-behaviour": {
            "hidden-fields": ["schema"],
            "relabeling": {"host": "Dashboard", "login": "User of a proxy", "password": "Ray's token, or password"},
            "placeholders": {"host": "https://ray.example, or head", "port": "8265"},
        },
        "conn-fields": {
            "headers": _object("Headers", "HTTP headers of each request, as a JSON object."),
            "cookies": _object("Cookies", "HTTP cookies of each request, as a JSON object."),
            "verify": _text("Check the certificate, or CA file", "true, false, or a file of authorities to trust."),
        },
    }


def _skypilot() -> dict[str, Any]:
    return {
        "connection-type": "nemo_skypilot",
        "hook-name": "NeMo clouds (SkyPilot)",
        "hook-class-name": f"{_HOOKS}.back_ends.SkypilotHook",
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "login", "extra"],
            "relabeling": {"host": "API server", "password": "Token of a service account"},
            "placeholders": {"host": "https://sky.example, or sky", "port": "46580"},
        },
    }


def _text(label: str, description: str = "") -> dict[str, Any]:
    return _field(label, {"type": ["string", "null"]}, description)


def _secret(label: str, description: str = "") -> dict[str, Any]:
    return _field(label, {"type": ["string", "null"], "format": "password"}, description)


def _object(label: str, description: str) -> dict[str, Any]:
    return _field(label, {"type": ["object", "null"]}, description)


def _field(label: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"label": label, "schema": schema, **({"description": description} if description else {})}
