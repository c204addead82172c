"""Receives what user code reports, from any process of the job, over a Unix socket."""

import os
import selectors
import socket
import tempfile
import time
from typing import Any, Callable, Dict, List, Optional

from nemo_airflow.runner.report_files import ReportFiles
from nemo_airflow.runner.report_reading import read_report
from nemo_airflow.runner.stream_writer import StreamWriter

_BATCH = 500
_FLUSH_EVERY = 0.2

_LONGEST_REPORT = 64 << 20
"""Most bytes of a line; a sender of a longer one is disconnected, since it would fill the supervisor's memory."""


class ReportServer:
    """Listens for reports and writes them as records, metrics in batches.

    Args:
        writer: Where the records go.
        selector: The runner's selector; callbacks are the keys' data.
        announced: Called with the path, among the outputs, of a file or folder that is announced.
        saved: Called with each checkpoint, as it was reported.
        folder: The job's folder, if other machines may report as well.
    """

    def __init__(
        self,
        writer: StreamWriter,
        selector: selectors.BaseSelector,
        announced: Callable[[str], None],
        saved: Callable[[Dict[str, Any]], None],
        folder: str = "",
    ) -> None:
        self._writer = writer
        self._files = ReportFiles(folder, self._take) if folder else None
        self.forward: Optional[Callable[[List[List[Any]]], None]] = None
        """Takes points, too, on another machine than the first."""
        self._announced = announced
        self._saved = saved
        self._selector = selector
        # A folder directly under the temporary one: a socket's path has at most 108 bytes.
        self._folder = tempfile.mkdtemp(prefix="nemo-")
        self.path = os.path.join(self._folder, "events")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self.path)
        self._socket.listen(128)
        self._socket.setblocking(False)
        self._rests: Dict[socket.socket, bytearray] = {}
        self._points: List[List[Any]] = []
        self._since = 0.0
        self.outcome: Optional[Dict[str, Any]] = None
        """The child's report of its end: a result or an error."""
        self._listening = False
        self._listen()

    def close(self) -> None:
        """Reads all reports that have arrived, and stops listening."""
        self._accept()
        for connection in list(self._rests):
            while connection in self._rests and self._receive(connection):
                pass
        if self._files is not None:
            self._files.read()
        self.flush()
        for connection in list(self._rests):
            self._drop(connection)
        if self._listening:
            self._selector.unregister(self._socket)
        self._socket.close()
        os.unlink(self.path)
        os.rmdir(self._folder)

    def tick(self) -> None:
        """Writes points that have waited long enough, and accepts connections that waited for descriptors."""
        if not self._listening:
            self._listen()
            self._accept()
        if self._files is not None:
            self._files.tick()
        if self._points and time.monotonic() - self._since >= _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Writes the collected points."""
        points, self._points = self._points, []
        if points:
            self._writer.record("metrics", {"points": points})
            if self.forward is not None:
                self.forward(points)

    def _listen(self) -> None:
        self._selector.register(self._socket, selectors.EVENT_READ, self._accept)
        self._listening = True

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError:  # no file descriptors are left: new connections wait until there are
                if self._listening:
                    self._selector.unregister(self._socket)
                    self._listening = False
                return
            connection.setblocking(False)
            self._rests[connection] = bytearray()
            self._selector.register(connection, selectors.EVENT_READ, _Reader(self._receive, connection))
            while connection in self._rests and self._receive(connection):
                pass

    def _receive(self, connection: socket.socket) -> bool:
        """Reads available reports; returns whether there may be more."""
        try:
            data = connection.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return False
        rest = self._rests[connection]
        rest += data
        if b"\n" in data:
            *lines, self._rests[connection] = rest.split(b"\n")
            for line in lines:
                self._take(bytes(line))
        elif len(rest) > _LONGEST_REPORT:
            self._warn_of(bytes(rest[:80]), f"longer than {_LONGEST_REPORT} bytes")
            self._drop(connection)
            return False
        return True

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()
        del self._rests[connection]

    def _take(self, line: bytes, place: str = "") -> None:
        try:
            kind, report = read_report(line)
        except ValueError as error:
            self._warn_of(line, str(error))
            return
        if place and kind == "metrics":
            report["points"] = [[f"{place}/{name}", *rest] for name, *rest in report["points"]]
        _HANDLERS[kind](self, report)

    def _warn_of(self, line: bytes, why: str) -> None:
        self._writer.record("warning", {"message": f"a report that cannot be read ({why[:200]}): {line[:80]!r}"})

    def _add_points(self, report: Dict[str, Any]) -> None:
        if not self._points:
            self._since = time.monotonic()
        self._points.extend(report["points"])
        if len(self._points) >= _BATCH:
            self.flush()

    def _add_artifact(self, report: Dict[str, Any]) -> None:
        self._writer.record("artifact", report)
        self._announced(str(report.get("path", "")))

    def _add_checkpoint(self, report: Dict[str, Any]) -> None:
        self._writer.record("checkpoint", report)
        self._saved(report)

    def _set_outcome(self, report: Dict[str, Any]) -> None:
        self.outcome = report


class _Reader:
    """A callback for one connection; a class rather than a closure, for its name in tracebacks."""

    def __init__(self, receive: Callable[[socket.socket], bool], connection: socket.socket) -> None:
        self._receive = receive
        self._connection = connection

    def __call__(self) -> None:
        self._receive(self._connection)


def _pass_on(kind: str) -> Callable[[ReportServer, Dict[str, Any]], None]:
    def write(server: ReportServer, report: Dict[str, Any]) -> None:
        server._writer.record(kind, report)

    return write


_HANDLERS: Dict[str, Callable[[ReportServer, Dict[str, Any]], None]] = {
    "metrics": ReportServer._add_points,
    "outcome": ReportServer._set_outcome,
    "artifact": ReportServer._add_artifact,
    "checkpoint": ReportServer._add_checkpoint,
    **{kind: _pass_on(kind) for kind in ("config", "input", "model", "tags", "warning")},
}
