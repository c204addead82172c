"""Airflow's connections and secrets, for code that does not import Airflow.

Inside Airflow a connection comes from Airflow, with its secrets back-ends; elsewhere (command
line, tests) from ``AIRFLOW_CONN_<ID>``, in either of Airflow's forms: a URI or JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from nemo_airflow.exceptions import NotDefinedError, SettingsError

if TYPE_CHECKING:
    from airflow.sdk import Connection

T = TypeVar("T")

_EXPORTED = "AIRFLOW_CONN_"
"""Begins the names of variables that have a connection each."""


@dataclasses.dataclass(frozen=True)
class ConnectionInfo:
    """The fields of an Airflow connection.

    Attributes:
        conn_id: Its id.
        conn_type: For example ``mlflow`` or ``ssh``.
        host: Host name or address; empty if not given, like the texts below.
        port: Port, or None.
        login: User name.
        password: Never shown.
        schema: Depends on the type: a protocol, a database.
        extra: Further fields. May contain secrets, so they are not shown either.
    """

    conn_id: str
    conn_type: str = ""
    host: str = ""
    port: int | None = None
    login: str = ""
    password: str = dataclasses.field(default="", repr=False)
    schema: str = ""
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)


def get_connection(conn_id: str) -> ConnectionInfo:
    """Returns a connection. Blocks: use :func:`aget_connection` on an event loop.

    Raises:
        NotDefinedError: The connection is not defined.
        SettingsError: The connection cannot be read.
    """
    return _read_from_airflow(conn_id, _from_airflow) if _inside_airflow() else _from_environment(conn_id)


def get_connection_uri(conn_id: str) -> str:
    """Returns a whole connection as a URI, in Airflow's form. Blocks.

    Raises:
        NotDefinedError: The connection is not defined.
        SettingsError: The connection cannot be read, or outside Airflow its variable has no URI.
    """
    if _inside_airflow():
        return _read_from_airflow(conn_id, lambda connection: connection.get_uri())
    _from_environment(conn_id)
    name = f"AIRFLOW_CONN_{conn_id.upper()}"
    if os.environ[name].lstrip().startswith("{"):
        raise SettingsError(f"{name} is a JSON object, of which only Airflow makes a URI: set it to a URI")
    return os.environ[name]


def get_variable(name: str) -> str:
    """Returns the text of an Airflow variable; outside Airflow that of ``AIRFLOW_VAR_<NAME>``. Blocks.

    Raises:
        NotDefinedError: The variable is not defined.
        SettingsError: The variable cannot be read.
    """
    exported = f"AIRFLOW_VAR_{name.upper()}"
    missing = f"variable {name!r} is not defined: add it with `airflow variables set {name} ...`, or set {exported}"
    if not _inside_airflow():
        if exported not in os.environ:
            raise NotDefinedError(missing)
        return os.environ[exported]
    from airflow.sdk import Variable
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import GetVariable

    try:
        return str(Variable.get(name))
    except AirflowRuntimeError as error:
        if error.error.error != ErrorType.VARIABLE_NOT_FOUND:
            raise SettingsError(f"variable {name!r} cannot be read from Airflow ({error.error.error.value})") from None
    except PermissionError as error:
        raise SettingsError(f"variable {name!r} cannot be read from Airflow ({type(error).__name__})") from None
    if silent := _silent_backend(lambda backend: backend.get_variable(name), GetVariable(key=name)):
        raise SettingsError(f"variable {name!r} cannot be read from Airflow: {silent}")
    raise NotDefinedError(missing)


def mask(value: str) -> None:
    """Has Airflow mask a value in all that this process, and the one that supervises it, logs and records."""
    if _inside_airflow():
        from airflow.sdk.log import mask_secret

        mask_secret(value)


def _silent_backend(ask: Callable[[Any], Any], request: Any) -> str:
    """Returns which secrets back-end could not be asked, and why; empty where all have answered.

    Airflow takes a back-end that is away for one that does not have what it was asked for.

    Args:
        ask: Asks a back-end again.
        request: The same question, to Airflow's own API.
    """
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    for backend in ensure_secrets_backend_loaded():
        try:
            ask(backend)
        except Exception as error:  # noqa: BLE001 - whatever a back-end of another distribution raises
            return f"{type(backend).__name__} does not answer ({type(error).__name__})"  # its text may hold a secret
    supervisor = getattr(task_runner, "SUPERVISOR_COMMS", None)
    answer = supervisor.send(request) if supervisor is not None else None
    if isinstance(answer, ErrorResponse) and answer.error not in (
        ErrorType.CONNECTION_NOT_FOUND,
        ErrorType.VARIABLE_NOT_FOUND,
    ):
        return f"Airflow's API does not answer ({answer.error.value})"
    return ""


def environment_connections() -> list[ConnectionInfo]:
    """Returns the connections of the ``AIRFLOW_CONN_*`` variables, without those that cannot be read."""
    found = []
    for name in sorted(os.environ):
        if name.startswith(_EXPORTED) and name != _EXPORTED:
            with contextlib.suppress(SettingsError):  # said to who uses it
                found.append(_from_environment(name.removeprefix(_EXPORTED).lower()))
    return found


async def aget_connection(conn_id: str) -> ConnectionInfo:
    """Returns a connection without blocking the event loop, for triggers.

    Raises:
        NotDefinedError: The connection is not defined.
        SettingsError: The connection cannot be read.
    """
    if not _inside_airflow():
        return _from_environment(conn_id)
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    with _clear_errors(conn_id):
        try:
            connection = await BaseHook.aget_connection(conn_id)
        except AirflowNotFoundException:
            await asyncio.to_thread(_refuse_silence, conn_id)
            raise
    # Reading the extra fields masks them, which talks to Airflow and may block.
    return await asyncio.to_thread(_from_airflow, connection)


def redact(text: str) -> str:
    """Returns the text with the secrets that Airflow knows in this process replaced by ``***``."""
    if not _inside_airflow():
        return text
    from airflow.sdk.log import redact as airflow_redact  # type: ignore[attr-defined] # as Airflow's own providers do

    return str(airflow_redact(text))


def find_secrets(text: str) -> list[tuple[int, int]]:
    """Returns the start and end of each secret that :func:`redact` finds in the text."""
    if not _inside_airflow():
        return []
    from airflow.sdk.log import redact as airflow_redact  # type: ignore[attr-defined] # as Airflow's own providers do

    found: list[tuple[int, int]] = []

    def note(match: re.Match[str]) -> str:
        found.append(match.span())
        return "***"

    # The masker passes its replacement to re.sub, which also accepts a function.
    masked = airflow_redact(text, replacement=note)  # type: ignore[arg-type]
    return found if found or masked == text else [(0, len(text))]


def _read_from_airflow(conn_id: str, convert: Callable[[Connection], T]) -> T:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    with _clear_errors(conn_id):
        try:
            return convert(BaseHook.get_connection(conn_id))
        except AirflowNotFoundException:
            _refuse_silence(conn_id)
            raise


def _refuse_silence(conn_id: str) -> None:
    """Asks again for a connection that nobody is said to have.

    Raises:
        SettingsError: A secrets back-end, or Airflow's API, does not answer.
    """
    from airflow.sdk.execution_time.comms import GetConnection

    if silent := _silent_backend(lambda backend: backend.get_connection(conn_id), GetConnection(conn_id=conn_id)):
        raise SettingsError(f"connection {conn_id!r} cannot be read from Airflow: {silent}") from None


def _inside_airflow() -> bool:
    # Checked in the loaded modules, so that other code does not import Airflow.
    return "airflow.sdk" in sys.modules


@contextlib.contextmanager
def _clear_errors(conn_id: str) -> Iterator[None]:
    from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException, AirflowRuntimeError

    try:
        yield
    except AirflowNotFoundException as error:
        raise NotDefinedError(_not_defined(conn_id)) from error
    except (AirflowException, AirflowRuntimeError, PermissionError, ValueError) as error:
        # Not chained: the original may quote the connection's URI, and with it the password.
        raise SettingsError(f"connection {conn_id!r} cannot be read from Airflow ({type(error).__name__})") from None


def _from_airflow(connection: Connection) -> ConnectionInfo:
    return ConnectionInfo(
        conn_id=connection.conn_id,
        conn_type=connection.conn_type or "",
        host=connection.host or "",
        port=connection.port,
        login=connection.login or "",
        password=connection.password or "",
        schema=connection.schema or "",
        extra=connection.extra_dejson,
    )


def _from_environment(conn_id: str) -> ConnectionInfo:
    name = f"{_EXPORTED}{conn_id.upper()}"
    text = os.environ.get(name)
    if text is None:
        raise NotDefinedError(_not_defined(conn_id))
    try:
        return _from_json(conn_id, text) if text.lstrip().startswith("{") else _from_uri(conn_id, text)
    except (ValueError, TypeError, AttributeError):
        # Not chained: the original error quotes the text, and with it the password.
        raise SettingsError(
            f"{name} is neither a connection URI nor a JSON object with the fields of a connection"
        ) from None


def _from_json(conn_id: str, text: str) -> ConnectionInfo:
    data = json.loads(text)
    extra = data.get("extra") or {}
    port = data.get("port")
    return ConnectionInfo(
        conn_id=conn_id,
        conn_type=str(data.get("conn_type") or ""),
        host=str(data.get("host") or ""),
        port=int(port) if port not in (None, "") else None,
        login=str(data.get("login") or ""),
        password=str(data.get("password") or ""),
        schema=str(data.get("schema") or ""),
        extra=dict(json.loads(extra) if isinstance(extra, str) else extra),
    )


def _from_uri(conn_id: str, text: str) -> ConnectionInfo:
    conn_type, _, rest = text.partition("://")
    if not rest and "://" not in text:
        raise ValueError("no scheme")
    # type://protocol://host: Airflow keeps the inner protocol in the host.
    protocol, inner, _ = rest.partition("://")
    inner_protocol = f"{protocol}://" if inner else ""
    parts = urlsplit(f"//{rest.removeprefix(inner_protocol)}")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    extra: dict[str, Any] = json.loads(query["__extra__"]) if "__extra__" in query else dict(query)
    return ConnectionInfo(
        conn_id=conn_id,
        conn_type=conn_type.replace("-", "_"),
        host=inner_protocol + unquote(parts.hostname or ""),
        port=parts.port,
        login=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        schema=unquote(parts.path.removeprefix("/")),
        extra=extra,
    )


def _not_defined(conn_id: str) -> str:
    add = f"add it with `airflow connections add {conn_id} ...`"
    return f"connection {conn_id!r} is not defined: {add}, or set AIRFLOW_CONN_{conn_id.upper()}"
