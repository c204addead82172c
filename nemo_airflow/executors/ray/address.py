"""Where a Ray cluster's dashboard is, and how one logs in to it."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from nemo_airflow.connections import ConnectionInfo, aget_connection
from nemo_airflow.exceptions import SettingsError

ENVIRONMENT = "RAY_ADDRESS"
DEFAULT_PORT = 8265


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A dashboard, and what to send along with each request.

    Attributes:
        url: Its address without credentials: ``http://head:8265``.
        headers: HTTP headers, for example a proxy's or Ray's own token.
        cookies: HTTP cookies.
        verify: Whether the server's certificate is checked, or a file of authorities to check it by.
    """

    url: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    cookies: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    verify: bool | str = True


async def resolve(conn_id: str | None, address: str | None) -> Endpoint:
    """Returns the dashboard that an executor means.

    Args:
        conn_id: Id of an Airflow connection, or None.
        address: The dashboard's address, in place of the connection's; ``$RAY_ADDRESS`` if neither is given.

    Raises:
        SettingsError: None is given, or it is not the address of a dashboard.
    """
    info = await aget_connection(conn_id) if conn_id else None
    if address:
        url = _checked(address, "address")
    elif info is not None:
        url = _checked(_url(info), f"the host of connection {info.conn_id!r}")
    else:
        url = from_environment()
    if info is None:
        return Endpoint(url)
    extra = info.extra
    headers = {**_login(info), **_texts(extra.get("headers"), "headers", info.conn_id)}
    return Endpoint(url, headers, _texts(extra.get("cookies"), "cookies", info.conn_id), _verify(extra.get("verify")))


def from_environment() -> str:
    """Returns the address in ``$RAY_ADDRESS``.

    Raises:
        SettingsError: It is not set, or not that of a dashboard.
    """
    address = os.environ.get(ENVIRONMENT)
    if not address:
        raise SettingsError(
            f"no Ray cluster is named: give RayExecutor a ray_conn_id or an address, or set {ENVIRONMENT}"
        )
    return _checked(address, ENVIRONMENT)


def _checked(address: str, where: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(
            f"{where} is {address!r}, which is not the address of Ray's dashboard: give http://HOST:{DEFAULT_PORT}"
        )
    if parts.username or parts.password:
        raise SettingsError(
            f"{where} has a login in it: put the login into an Airflow connection, and give that as ray_conn_id"
        )
    return address.rstrip("/")


def _url(info: ConnectionInfo) -> str:
    host = info.host
    if "://" not in host:
        return f"{info.schema or 'http'}://{host}:{info.port or DEFAULT_PORT}"
    has_port = urlsplit(host).port is not None
    return host if has_port or info.port is None else f"{host.rstrip('/')}:{info.port}"


def _login(info: ConnectionInfo) -> dict[str, str]:
    """A login and password for a proxy before the dashboard, or a password alone: Ray's token."""
    if info.login:
        pair = base64.b64encode(f"{info.login}:{info.password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {"Authorization": f"Bearer {info.password}"} if info.password else {}


def _texts(value: Any, name: str, conn_id: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SettingsError(f"extra field {name!r} of connection {conn_id!r} is not a JSON object of names and values")
    return {str(key): str(text) for key, text in value.items()}


def _verify(value: Any) -> bool | str:
    if value is None:
        return True
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), value)
    return bool(value)
