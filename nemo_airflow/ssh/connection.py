"""Opens SSH connections as the SSH provider's connections say, but with host keys checked unless told not to."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nemo_airflow.connections import ConnectionInfo, aget_connection
from nemo_airflow.exceptions import AccessRefused, BackendUnavailable, MissingExtraError, SettingsError
from nemo_airflow.ssh import system
from nemo_airflow.ssh.system import SystemSSH

if TYPE_CHECKING:
    import asyncssh

DEFAULT_PORT = 22
_CONNECT_TIMEOUT = 30.0
_KEEPALIVE = 30

_FAST_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""Ciphers that come before asyncssh's own choice, ChaCha20: they take half the time where the processor knows AES."""


async def connect(conn_id: str) -> asyncssh.SSHClientConnection | SystemSSH:
    """Opens a connection.

    With the extra field ``system_ssh`` it is that of the machine's own ``ssh``: :mod:`nemo_airflow.ssh.system`.

    What the SSH provider's ``SSHHook`` reads is read: host, port, login, password, and of the extra
    fields ``key_file``, ``private_key``, ``private_key_passphrase``, ``host_key``,
    ``no_host_key_check``, ``look_for_keys``, ``conn_timeout``, ``ciphers``, ``compress``,
    ``host_proxy_cmd``; besides ``known_hosts`` (a file) and ``jump_conn_id`` (the connection of a
    host to go through). ``~/.ssh/config`` and ``~/.ssh/known_hosts`` count as for ``ssh``.

    Args:
        conn_id: Id of an Airflow connection of type ``ssh``.

    Raises:
        SettingsError: The connection is not defined, or what it says cannot be used.
        AccessRefused: The host refused the login, or its key is not the known one.
        BackendUnavailable: The host cannot be reached.
    """
    try:
        # In a thread: the import takes a second, and the event loop may be a triggerer's.
        client = await asyncio.to_thread(importlib.import_module, "asyncssh")
    except ImportError as error:
        raise MissingExtraError("an SSH connection", "slurm") from error
    info = await aget_connection(conn_id)
    if not info.host:
        raise SettingsError(f"connection {conn_id!r} names no host: set its host")
    if system.is_asked_for(info):
        return await system.connect(info)
    jump = info.extra.get("jump_conn_id")
    tunnel = await connect(str(jump)) if jump else None
    try:
        with _clear_errors(client, info):
            connection: asyncssh.SSHClientConnection = await client.connect(
                info.host, info.port or DEFAULT_PORT, tunnel=tunnel or (), **_options(client, info)
            )
            return connection
    except BaseException:
        if tunnel is not None:
            tunnel.close()
        raise


def address(info: ConnectionInfo) -> str:
    """Returns ``user@host:port``, for people and as the name of the cluster behind it."""
    return f"{info.login or getpass.getuser()}@{info.host}:{info.port or DEFAULT_PORT}"


def _options(asyncssh: Any, info: ConnectionInfo) -> dict[str, Any]:
    extra = info.extra
    timeout = float(extra.get("conn_timeout") or _CONNECT_TIMEOUT)
    options: dict[str, Any] = {
        "username": info.login or (),
        "connect_timeout": timeout,
        "login_timeout": timeout,
        "keepalive_interval": _KEEPALIVE,
        "keepalive_count_max": 4,
        "known_hosts": _known_hosts(asyncssh, info),
    }
    if info.password:
        options["password"] = info.password
    if keys := _keys(asyncssh, info):
        options["client_keys"] = keys
    elif str(extra.get("look_for_keys", "true")).lower() == "false":
        options.update(client_keys=None, agent_path=None)
    options["encryption_algs"] = extra.get("ciphers") or _FAST_CIPHERS
    if proxy := extra.get("host_proxy_cmd"):
        options["proxy_command"] = proxy
    return options


def _keys(asyncssh: Any, info: ConnectionInfo) -> list[Any]:
    text, file = info.extra.get("private_key"), info.extra.get("key_file")
    passphrase = info.extra.get("private_key_passphrase")
    if not text and not file:
        return []
    if text and file:
        raise SettingsError(f"connection {info.conn_id!r} has both private_key and key_file: keep one of them")
    try:
        if text:
            return [asyncssh.import_private_key(str(text), passphrase)]
        return [asyncssh.read_private_key(str(file), passphrase)]
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        what = f"key_file {file}" if file else "private_key"
        raise SettingsError(f"the {what} of connection {info.conn_id!r} cannot be read: {error}") from error


def _known_hosts(asyncssh: Any, info: ConnectionInfo) -> Any:
    """Returns what asyncssh checks the host's key against; None to check nothing."""
    key, unchecked = info.extra.get("host_key"), info.extra.get("no_host_key_check")
    if key:
        words = str(key).split()
        text = " ".join(words[:2]) if len(words) > 1 else f"ssh-rsa {key}"
        try:
            return ([asyncssh.import_public_key(text)], [], [], [], [], [], [])
        except asyncssh.KeyImportError as error:
            raise SettingsError(f"the host_key of connection {info.conn_id!r} cannot be read: {error}") from error
    if str(unchecked).lower() == "true":
        return None
    return info.extra.get("known_hosts") or ()


@contextlib.contextmanager
def _clear_errors(asyncssh: Any, info: ConnectionInfo) -> Iterator[None]:
    where = f"{address(info)} (connection {info.conn_id!r})"
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise AccessRefused(
            f"the host key of {where} is not the known one ({error}): put the right one into the connection's "
            "host_key, or into ~/.ssh/known_hosts"
        ) from error
    except asyncssh.PermissionDenied as error:
        raise AccessRefused(f"{where} refused the login: check its user, key and password ({error})") from error
    except (asyncssh.KeyExchangeFailed, asyncssh.ProtocolNotSupported) as error:
        raise AccessRefused(f"{where} and this client agree on no algorithm: {error}") from error
    except (OSError, asyncssh.Error) as error:
        raise BackendUnavailable(f"cannot connect to {where}: {error or type(error).__name__}") from error
