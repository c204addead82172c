"""Which API server SkyPilot's client talks to: it reads the environment, and knows one server for a process."""

from __future__ import annotations

import os
import threading

from nemo_airflow.connections import ConnectionInfo, aget_connection
from nemo_airflow.exceptions import SettingsError

ENDPOINT = "SKYPILOT_API_SERVER_ENDPOINT"
_TOKEN = "SKYPILOT_SERVICE_ACCOUNT_TOKEN"  # noqa: S105 - the name of a variable
_DEFAULT_PORT = 46580

_default: str | None = None
"""What the environment named before a connection was used."""
_chosen: str | None = None
"""The server of this process, once there is one; empty for that of SkyPilot's own configuration."""
_choosing = threading.Lock()


async def choose(conn_id: str | None) -> None:
    """Has SkyPilot's client talk to the server of a connection; to that of its own configuration for None.

    Raises:
        SettingsError: The connection is not defined, or this process talks to another server.
    """
    info = await aget_connection(conn_id) if conn_id else None
    with _choosing:
        _choose(info)


def _choose(info: ConnectionInfo | None) -> None:
    global _chosen, _default
    if _default is None:
        _default = os.environ.get(ENDPOINT, "").rstrip("/")
    url = _url(info) if info is not None else _default
    if _chosen is None:
        _chosen = url
        if info is not None:
            os.environ[ENDPOINT] = url
            if info.password:
                os.environ[_TOKEN] = info.password
    if url != _chosen:
        where = f"connection {info.conn_id!r} names {url}" if info else "SkyPilot's own configuration is asked for"
        raise SettingsError(
            f"{where}, but this process talks to SkyPilot's API server {_chosen or 'of its own configuration'}, and "
            "its client knows only one: use the same connection for all, or a triggerer and workers of their own"
        )


def _url(info: ConnectionInfo) -> str:
    if not info.host:
        raise SettingsError(f"connection {info.conn_id!r} has no host: set it to the address of SkyPilot's API server")
    if "://" in info.host:
        return info.host.rstrip("/")
    return f"{info.schema or 'http'}://{info.host}:{info.port or _DEFAULT_PORT}"
