"""Brings the samples and points of a job's other nodes into the stream of its first node, in datagrams.

They go to the address and port where the job's processes meet, by UDP: TCP has ports of its own, so that of the
processes stays free. A datagram that is lost costs one sample, and nobody ever waits for one. Points are sent again
until the first node says that it has them. Each datagram is signed with the digest of the job's description, which
only the nodes of the job have.
"""

import json
import math
import os
import re
import select
import selectors
import signal
import socket
import sys
import time
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from nemo_airflow.runner.report_reading import read_report

_LONGEST = 60_000
_AT_ONCE = 100
"""Datagrams that are read before the job's output is looked at again."""

_AGAIN = 1.0
"""Seconds after which points are sent again of which the first node has not said that it has them."""

_WINDOW = 32
"""Datagrams with points that are on their way at one time."""

_WAITING = 10_000
"""Most datagrams with points that wait for a first node that is silent; later ones are dropped, and counted."""

_AT_THE_END = 5.0
"""Seconds without an answer, after the job's end on this node, for which points are sent again."""

_NAME = re.compile(r"\w{1,200}")


def node_number() -> int:
    """Returns which node of its job this one is, from what the back-end sets."""
    # Slurm's first: its processes inherit NODE_RANK from the runner on the first node.
    return int(os.environ.get("SLURM_NODEID") or os.environ.get("NODE_RANK") or 0)


class NodeSamples:
    """The samples of this node and, on the first one, of the others.

    Args:
        folder: The job's folder.
        selector: The runner's selector; callbacks are the keys' data.
        record: Writes a record into the stream.
    """

    def __init__(
        self, folder: str, selector: selectors.BaseSelector, record: Callable[[str, Dict[str, Any]], None]
    ) -> None:
        self._record = record
        self._nodes = int(os.environ.get("NNODES") or 1)
        self._node = node_number()
        self._signer = _Signer(folder) if self._nodes > 1 else None
        self._selector = selector
        self._socket: Optional[socket.socket] = None
        self._seen: Set[Tuple[str, int]] = set()
        """Sender and number of each datagram with points that was recorded."""
        self._points = _Points(self._signer, self._node, record) if self._signer is not None and self._node else None
        if self._signer is not None and self._node == 0:
            try:
                self._socket = _bind(int(os.environ["MASTER_PORT"]))
            except (KeyError, ValueError, OSError) as error:
                record("warning", {"message": f"the samples of the other nodes are not recorded: {error!r}"})
        if self._socket is not None:
            selector.register(self._socket, selectors.EVENT_READ, self._receive)

    def put(self, values: Dict[str, float]) -> None:
        """Writes the values of this node into the stream, and sends them to the first one."""
        if self._signer is None:
            return self._record("sample", {"values": values})
        if self._node:
            self._signer.send(self._node, values)
        return self._record("sample", {"node": self._node, "values": values})

    def forward(self, points: List[List[Any]]) -> None:
        """Sends points of this node to the first one, under names that begin with this node's."""
        if self._points is not None:
            self._points.put(points)

    def tick(self) -> None:
        """Sends points again that have not arrived."""
        if self._points is not None:
            self._points.tick()

    def close(self) -> None:
        """Reads what has arrived, and stops listening; waits some seconds for points to arrive at the first node."""
        if self._points is not None:
            self._points.close()
        if self._socket is not None:
            self._receive()
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _receive(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, sender = self._socket.recvfrom(_LONGEST + 1)  # type: ignore[union-attr]
            except OSError:  # nothing more is there
                return
            message = self._signer.open(data)  # type: ignore[union-attr]
            if message is None or not 0 < message["node"] < self._nodes:
                continue
            if "points" in message:
                self._take_points(message, sender)
            else:
                self._record("sample", _sample_in(message))

    def _take_points(self, message: Dict[str, Any], sender: Any) -> None:
        key = str(message["from"]), int(message["number"])
        if key not in self._seen:
            self._seen.add(key)
            points = [[f"node_{message['node']}/{name}", *rest] for name, *rest in message["points"]]
            try:
                _, fields = read_report(json.dumps({"type": "metrics", "points": points}).encode())
            except ValueError as error:
                self._record("warning", {"message": f"points of node {message['node']} cannot be read: {error}"})
            else:
                self._record("metrics", fields)
        answer = json.dumps({"node": 0, "has": key[1]}, separators=(",", ":")).encode()
        try:
            self._socket.sendto(self._signer.seal(answer), sender)  # type: ignore[union-attr]
        except OSError:
            return  # it is asked again


def start_beside(folder: str, job: Dict[str, Any]) -> None:
    """Samples this node in a process of its own, if this is the first process of a node without a supervisor.

    That process is nobody's child, so that ``os.wait()`` in the job's code does not wait for it, and ends with this
    one. It has to be called before this process has threads.
    """
    interval = float(job.get("sample_interval") or 0)
    alone = "SLURM_NODEID" in os.environ and "NEMO_AIRFLOW_ARRAY_TASK" not in os.environ
    if not interval or not alone or not node_number() or os.environ.get("LOCAL_RANK", "0") != "0":
        return
    root = os.getppid()  # the launcher, or Slurm's own process for all tasks of this node
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)  # it closes with this process, which may become the job's program, and its forks
    middle = os.fork()
    if middle:
        os.close(reading)
        os.waitpid(middle, 0)
        return
    try:
        os.close(writing)
        if not os.fork():
            _sample_until_closed(reading, root, folder, job, interval)
    finally:  # also after an error: the job goes on without samples of this node
        os._exit(0)


def _sample_until_closed(reading: int, root: int, folder: str, job: Dict[str, Any], interval: float) -> None:
    import select

    from nemo_airflow.runner import signals
    from nemo_airflow.runner.resources import Sampler

    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # srun waits for the end of its tasks' output
        os.dup2(null, fd)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in signals.WARNINGS:
        signal.signal(number, signal.SIG_IGN)
    signer, sampler = _Signer(folder), Sampler(root, job)
    pause = min(1.0, interval)
    while not select.select([reading], [], [], pause)[0]:
        signer.send(node_number(), sampler.sample())
        pause = interval


class _Signer:
    """Sends and reads signed samples.

    Args:
        folder: The job's folder.
    """

    def __init__(self, folder: str) -> None:
        import hashlib

        with open(os.path.join(folder, "job.json"), "rb") as file:
            self._key = hashlib.sha256(file.read()).digest()

    def send(self, node: int, values: Dict[str, float]) -> None:
        """Sends the values of a node to the first one, if it can be reached."""
        text = json.dumps({"node": node, "values": values}, separators=(",", ":")).encode()
        sender = connect()
        if sender is None or len(text) > _LONGEST - 32:
            return
        with sender:
            try:
                sender.send(self.seal(text))
            except OSError:
                return  # it costs this sample

    def seal(self, text: bytes) -> bytes:
        """Returns a datagram."""
        return self._sign(text) + text

    def open(self, data: bytes) -> Optional[Dict[str, Any]]:
        """Returns the message in a datagram; None for one that is not of this job."""
        import hmac

        if not hmac.compare_digest(data[:32], self._sign(data[32:])):
            return None
        return dict(json.loads(data[32:]))

    def _sign(self, text: bytes) -> bytes:
        import hashlib
        import hmac

        return hmac.new(self._key, text, hashlib.sha256).digest()


def connect() -> Optional[socket.socket]:
    """Returns a socket that sends to the first node; None where it is not known, or cannot be found."""
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    try:
        found = socket.getaddrinfo(address, int(port or 0), type=socket.SOCK_DGRAM) if address and port else []
        # IPv4 first: the first node listens there in any case.
        for family, kind, protocol, _, target in sorted(found, key=lambda each: each[0] != socket.AF_INET):
            sender = socket.socket(family, kind, protocol)
            sender.setblocking(False)
            sender.connect(target)
            return sender
    except (OSError, ValueError):
        return None
    return None


def _sample_in(message: Dict[str, Any]) -> Dict[str, Any]:
    values = {
        name: value
        for name, value in message["values"].items()
        if _NAME.fullmatch(name) and isinstance(value, (int, float)) and math.isfinite(value)
    }
    return {"node": int(message["node"]), "values": values}


class _Points:
    """Sends points to the first node until it says that it has them.

    Args:
        signer: Signs what is sent.
        node: Which node this one is.
        record: Writes a record into this node's own stream.
    """

    def __init__(self, signer: _Signer, node: int, record: Callable[[str, Dict[str, Any]], None]) -> None:
        self._signer = signer
        self._node = node
        self._record = record
        self._from = os.urandom(8).hex()
        self._number = 0
        self._dropped = 0
        self._waiting: OrderedDict[int, Tuple[bytes, int]] = OrderedDict()
        """Messages by number, with how many points each has."""
        self._sent_at: Dict[int, float] = {}
        self._socket: Optional[socket.socket] = None
        self._answered_at = time.monotonic()

    def put(self, points: List[List[Any]]) -> None:
        """Sends points, now and again until they have arrived."""
        message = {"node": self._node, "from": self._from, "number": self._number, "points": points}
        text = json.dumps(message, separators=(",", ":")).encode()
        if len(text) > _LONGEST - 32 and len(points) > 1:
            self.put(points[: len(points) // 2])
            self.put(points[len(points) // 2 :])
        elif len(text) > _LONGEST - 32 or len(self._waiting) >= _WAITING:
            self._dropped += len(points)
        else:
            self._waiting[self._number] = text, len(points)
            self._number += 1
            self.tick()

    def tick(self) -> None:
        """Reads answers, and sends what is due."""
        if not self._waiting:
            return
        self._socket = self._socket or connect()
        if self._socket is None:
            return
        self._read_answers(self._socket)
        now = time.monotonic()
        for number in list(self._waiting)[:_WINDOW]:
            if now - self._sent_at.get(number, -_AGAIN) >= _AGAIN:
                self._sent_at[number] = now
                try:
                    self._socket.send(self._signer.seal(self._waiting[number][0]))
                except OSError:  # nobody listens there yet, or any more
                    return

    def close(self) -> None:
        """Waits until all has arrived, or the first node is silent."""
        self._answered_at = time.monotonic()
        while self._waiting and time.monotonic() - self._answered_at < _AT_THE_END:
            self.tick()
            select.select([self._socket] if self._socket is not None else [], [], [], 0.1)
        if self._socket is not None:
            self._socket.close()
        if lost := sum(count for _, count in self._waiting.values()) + self._dropped:
            self._record("warning", {"message": f"{lost} points did not arrive at the job's first node"})

    def _read_answers(self, connected: socket.socket) -> None:
        while True:
            try:
                answer = self._signer.open(connected.recv(_LONGEST))
            except OSError:  # nothing more is there
                return
            if answer is not None and "has" in answer:
                self._answered_at = time.monotonic()
                self._waiting.pop(int(answer["has"]), None)
                self._sent_at.pop(int(answer["has"]), None)


def _bind(port: int) -> socket.socket:
    """Returns a socket for both families of addresses, where this machine has both."""
    if socket.has_dualstack_ipv6() and sys.platform != "win32":
        family, address = socket.AF_INET6, "::"
    else:
        family, address = socket.AF_INET, ""
    found = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        found.setblocking(False)
        found.bind((address, port))
    except OSError:
        found.close()
        raise
    return found
