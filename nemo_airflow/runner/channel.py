"""How a process of a job reaches its runner: reports over a Unix socket, or into a file from another machine."""

import json
import os
import socket
import threading
import weakref
from typing import Any, Dict

from nemo_airflow.runner import report_files

_EVENTS = "NEMO_AIRFLOW_EVENTS"
"""Environment variable with the path of the socket or file."""


class Channel:
    """A connection to the runner; connects when first used, and anew in a forked process.

    Args:
        path: Path of the runner's socket, or of a file where it does not run on this machine.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._socket: Any = None
        self._pid = 0
        _open.add(self)

    def send(self, kind: str, **fields: Any) -> None:
        """Sends one report."""
        fields["type"] = kind
        self.send_json(json.dumps(fields, separators=(",", ":")))

    def send_json(self, text: str) -> None:
        """Sends one report as JSON. Does nothing once the runner is gone."""
        data = text.encode("utf-8") + b"\n"
        with self._lock:
            if self._pid != os.getpid():
                self._socket, self._pid = self._connect(), os.getpid()
            if self._socket is not None:
                try:
                    self._socket.sendall(data)
                except OSError:
                    self._socket = None

    def _connect(self) -> Any:
        if self._path.endswith(report_files.END):
            return report_files.FileChannel(self._path)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._path)
        except OSError:
            return None
        return connection


_open: "weakref.WeakSet[Channel]" = weakref.WeakSet()


def _renew_locks() -> None:
    """Gives a forked process new locks: the inherited ones may be held by a thread that it does not have."""
    for channel in _open:
        channel._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)

_channels: Dict[str, Channel] = {}


def in_job() -> bool:
    """Returns whether this code runs in a job, where reports are received."""
    return _EVENTS in os.environ


def send(kind: str, **fields: Any) -> None:
    """Sends a report; does nothing outside a job."""
    path = os.environ.get(_EVENTS)
    if path:
        if path not in _channels:
            _channels[path] = Channel(path)
        _channels[path].send(kind, **fields)
