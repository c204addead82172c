"""MLflow for tasks in the worker, for example to compare models or to promote one in the registry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from nemo_airflow.doctor.machine import examine_tracker
from nemo_airflow.doctor.summary import summarize
from nemo_airflow.exceptions import MissingExtraError, NemoAirflowError, SettingsError
from nemo_airflow.tracking.mlflow.address import resolve
from nemo_airflow.tracking.mlflow.store import Credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

_logged_in: tuple[str, dict[str, str]] | None = None


class MLflowHook(BaseHook):
    """Provides MLflow's client for the store that trackers use.

    Args:
        conn_id: An Airflow connection with the address and the login. None: ``$MLFLOW_TRACKING_URI``,
            else the local default, as for :class:`~nemo_airflow.tracking.MLflowTracker`.
        tracking_uri: The address, instead of the connection's.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "mlflow_default"
    conn_type = "mlflow"
    hook_name = "MLflow"

    def __init__(self, conn_id: str | None = None, tracking_uri: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.tracking_uri = tracking_uri

    def get_conn(self) -> MlflowClient:
        """Returns MLflow's client for the store.

        MLflow reads the login from the process's environment, so it is written there: a task runs in
        its own process, and can log in to one server.

        Raises:
            SettingsError: The connection is not defined, or this process is logged in to another server.
            MissingExtraError: MLflow is not installed.
        """
        uri, credentials = resolve(self.tracking_uri, self.conn_id)
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise MissingExtraError("MLflowHook", "mlflow") from error
        if login := _login(credentials):
            _log_in(uri, login)
        from nemo_airflow.tracking.mlflow.client import opening_alone

        with opening_alone(uri):
            return MlflowClient(tracking_uri=uri)

    def test_connection(self) -> tuple[bool, str]:
        """Writes a run into the store, and deletes it; returns whether that went well, and what was found."""
        try:
            uri, credentials = resolve(self.tracking_uri, self.conn_id)
        except NemoAirflowError as error:
            return False, str(error)
        return summarize(examine_tracker(uri, credentials))


def _login(credentials: Credentials) -> dict[str, str]:
    verify = credentials.verify
    login = {
        "MLFLOW_TRACKING_USERNAME": credentials.username,
        "MLFLOW_TRACKING_PASSWORD": credentials.password,
        "MLFLOW_TRACKING_TOKEN": "" if credentials.username else credentials.token,
        "MLFLOW_TRACKING_INSECURE_TLS": "" if verify else "true",
        "MLFLOW_TRACKING_SERVER_CERT_PATH": verify if isinstance(verify, str) else "",
        "MLFLOW_TRACKING_CLIENT_CERT_PATH": credentials.client_cert,
    }
    return {name: value for name, value in login.items() if value}


def _log_in(uri: str, login: dict[str, str]) -> None:
    global _logged_in
    if _logged_in is not None and _logged_in != (uri, login):
        raise SettingsError(
            f"this process is logged in to {_logged_in[0]}, and MLflow keeps only one login: use another task for {uri}"
        )
    _logged_in = (uri, login)
    os.environ.update(login)
