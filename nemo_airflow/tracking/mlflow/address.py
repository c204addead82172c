"""Resolves a tracker's MLflow store and login: from a connection, then the environment, then a local default."""

from __future__ import annotations

import os
import time
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from nemo_airflow import settings
from nemo_airflow.connections import ConnectionInfo, get_connection
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.tracking.mlflow.store import Credentials


def resolve(tracking_uri: str | None, conn_id: str | None) -> tuple[str, Credentials]:
    """Returns the store's address, without credentials, and how to log in.

    Args:
        tracking_uri: The address, or None to take the connection's, else ``$MLFLOW_TRACKING_URI``,
            else a sqlite database in :func:`nemo_airflow.settings.home`.
        conn_id: An Airflow connection with the address and the login, or None.

    Raises:
        SettingsError: The connection is not defined, or the address cannot be used.
    """
    if conn_id:
        address, credentials = from_connection(_connection(conn_id))
        return _usable(without_login(tracking_uri or address)[0]), credentials
    environment = os.environ.get("MLFLOW_TRACKING_URI") or ""
    if tracking_uri == hide_login(environment):  # which may have the login
        tracking_uri = None
    uri = tracking_uri or environment or _default_uri()
    bare, username, password = without_login(uri)
    if username:
        verify, client_cert = _verify_from_environment(), _client_cert_from_environment()
        return _usable(bare), Credentials(username, password, verify=verify, client_cert=client_cert)
    return _usable(bare), _from_environment()


def from_connection(connection: ConnectionInfo) -> tuple[str, Credentials]:
    """Returns the address and the login of a connection.

    The host is a name, or a whole address (``https://mlflow.example/base``). The protocol is the
    schema's or the type's, if one of these is ``http`` or ``https``. A token is the extra field
    ``token``, or a password without a login. The extra field ``verify`` is false, or the file of
    an authority to trust; ``client_cert`` is the file of the client's own certificate and key.

    Raises:
        SettingsError: The connection has no host.
    """
    if not connection.host:
        raise SettingsError(
            f"connection {connection.conn_id!r} has no host: set it to the address of the MLflow server"
        )
    uri = connection.host
    if "://" not in uri:
        protocols = [name for name in (connection.schema, connection.conn_type) if name in ("http", "https")]
        host = f"[{uri}]" if ":" in uri else uri
        uri = f"{(protocols or ['http'])[0]}://{host}"
    uri, username, password = without_login(uri)
    if connection.port and urlsplit(uri).port is None:
        parts = urlsplit(uri)
        uri = parts._replace(netloc=f"{parts.netloc}:{connection.port}").geturl()
    if path := str(connection.extra.get("path") or ""):
        uri = f"{uri.rstrip('/')}/{path.strip('/')}"
    token = str(connection.extra.get("token") or "")
    verify = _verify(connection.extra.get("verify", True))
    if verify is True:  # verified by the environment's authority
        verify = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
    client_cert = str(connection.extra.get("client_cert") or "") or _client_cert_from_environment()
    if not connection.login and not username:
        token = token or connection.password
        return uri, Credentials(token=token, verify=verify, client_cert=client_cert)
    login = connection.login or username
    return uri, Credentials(login, connection.password or password, verify=verify, client_cert=client_cert)


def check_experiment(uri: str, name: str) -> None:
    """Refuses names of experiments that MLflow or the folder of their artifacts cannot have.

    Raises:
        SettingsError: The name is such a one.
    """
    shown = repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")
    if len(name) > _EXPERIMENT_LENGTH:
        raise SettingsError(
            f"experiment={shown} has {len(name)} characters, and MLflow allows {_EXPERIMENT_LENGTH}: shorten it"
        )
    if uri.startswith("sqlite:///"):
        folder = _folder_of(name)
        if folder in (".", ".."):
            raise SettingsError(f"experiment={shown} would put its artifacts outside their folder: give another name")
        if len(folder) > _FILE_NAME_LENGTH:
            raise SettingsError(
                f"experiment={shown} has {len(folder)} bytes as the name of a folder for its artifacts, and a disk "
                f"allows {_FILE_NAME_LENGTH}: shorten it"
            )


def _folder_of(experiment: str) -> str:
    return quote(experiment, safe=" ")


def artifact_location(uri: str, experiment: str) -> str | None:
    """Returns the artifact location of a new experiment: beside a sqlite database, else the store's default.

    MLflow's own default for a database without a server is a folder in the directory in which the
    process runs.
    """
    if not uri.startswith("sqlite:///"):
        return None
    return (_database_of(uri).parent / "mlartifacts" / _folder_of(experiment)).as_uri()


def is_missing_database(uri: str) -> bool:
    """Returns whether an address is that of a sqlite database that no run has made yet."""
    return uri.startswith("sqlite:///") and not _database_of(uri).exists()


def _database_of(uri: str) -> Path:
    """Returns the file of a sqlite database's address."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute()


def run_page(base: str, experiment_id: str, run_id: str) -> str:
    """Returns the address of a run's page, or an empty string where the base is not a server."""
    return (
        f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
        if base.startswith(("http://", "https://"))
        else ""
    )


def model_page(base: str, name: str, version: str) -> str:
    """Returns the address of the page of a model's version, or an empty string where the base is not a server."""
    return (
        f"{base.rstrip('/')}/#/models/{quote(name, safe='')}/versions/{quote(version, safe='')}"
        if base.startswith(("http://", "https://"))
        else ""
    )


_EXPERIMENT_LENGTH = 500
"""Characters of an experiment's name, by MLflow (``MAX_EXPERIMENT_NAME_LENGTH`` in ``mlflow/utils/validation.py``)."""

_FILE_NAME_LENGTH = 255
"""Bytes of a file's name on the usual disks."""

_SHOWN = 60

_CONNECTION_AGE = 60.0
"""Seconds for which a connection is cached: each batch of points needs it, and each look-up asks Airflow's server."""

_connections: dict[str, tuple[float, ConnectionInfo]] = {}


def _connection(conn_id: str) -> ConnectionInfo:
    known = _connections.get(conn_id)
    if known is None or time.monotonic() - known[0] > _CONNECTION_AGE:
        known = _connections[conn_id] = (time.monotonic(), get_connection(conn_id))
    return known[1]


def _default_uri() -> str:
    return f"sqlite:///{settings.home() / 'mlflow.db'}"


def _usable(uri: str) -> str:
    scheme = urlsplit(uri).scheme
    if (
        scheme in ("", "file")
        and uri != "databricks"
        and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("true", "1")
    ):
        instead = "use sqlite:////path/to/mlflow.db, or a server's http address"
        raise SettingsError(f"tracking_uri={uri!r} is a folder of files, which MLflow no longer supports: {instead}")
    if uri.startswith("sqlite:///"):
        folder = _database_of(uri).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"tracking_uri={uri!r}: cannot make the folder {folder}: {error.strerror}") from error
    return uri.rstrip("/") if scheme in ("http", "https") else uri


def hide_login(uri: str) -> str:
    """Returns an address without secrets: a database's address may contain a login too."""
    parts = urlsplit(uri)
    if not parts.netloc and not parts.query:
        return uri
    return uri.partition("?")[0].replace(f"//{parts.netloc}", f"//{parts.netloc.rpartition('@')[2]}", 1)


def without_login(uri: str) -> tuple[str, str, str]:
    """Returns a server's address without the login in it, the user name and the password.

    Raises:
        SettingsError: The text is not an address.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        raise SettingsError(f"the MLflow address cannot be read ({error}): give it as https://host:port") from None
    # A database's address keeps its login: the database driver needs it.
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return uri, "", ""
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return bare, unquote(parts.username or ""), unquote(parts.password or "")


def _from_environment() -> Credentials:
    """MLflow's own variables."""
    return Credentials(
        username=os.environ.get("MLFLOW_TRACKING_USERNAME", ""),
        password=os.environ.get("MLFLOW_TRACKING_PASSWORD", ""),
        token=os.environ.get("MLFLOW_TRACKING_TOKEN", ""),
        verify=_verify_from_environment(),
        client_cert=_client_cert_from_environment(),
    )


def _client_cert_from_environment() -> str:
    return os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH", "")


def _verify_from_environment() -> bool | str:
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    return _verify(False if insecure else os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True)


def _verify(value: object) -> bool | str:
    if isinstance(value, str) and value.lower() in ("false", "true", "0", "1"):
        return value.lower() in ("true", "1")
    return value if isinstance(value, (bool, str)) else True
