"""Reserves ports on the loopback address for servers that are started later."""

from __future__ import annotations

import socket

from nemo_airflow.exceptions import SettingsError


def hold_port(port: int = 0) -> socket.socket:
    """Reserves a port on the loopback address for a server that is started later, perhaps several times.

    As long as the returned socket is open, neither the kernel nor another caller gives the port to anyone, and a
    server that sets ``SO_REUSEADDR``, as asyncio, gRPC and Node do, can listen on it: Linux lets two sockets share
    an address if both set the option and none listens yet.

    Args:
        port: The port; 0 for any that is free.

    Raises:
        OSError: The port is in use, or held.
    """
    holder = socket.socket()
    try:
        holder.bind(("127.0.0.1", port))
    except BaseException:
        holder.close()
        raise
    # Only after binding: with the option, two holders could get the same port.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return holder


def port_of(holder: socket.socket) -> int:
    """Returns the number of a held port."""
    return int(holder.getsockname()[1])


def check_port(port: int, option: str) -> None:
    """Raises :class:`SettingsError` if a port is already in use."""
    with socket.socket() as sock:
        # Connections of a server that has just ended are ignored.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise SettingsError(f"port {port} cannot be used ({error}): choose another with {option}") from error
