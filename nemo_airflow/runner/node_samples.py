"""Brings the samples of a job's other nodes into the stream of its first node, in datagrams.

They go to the address and port where the job's processes meet, by UDP: TCP has ports of its own, so that of the
processes stays free. A datagram that is lost costs one sample, and nobody ever waits for one. Each is signed with the
digest of the job's description, which only the nodes of the job have.
"""

import json
import math
import os
import re
import selectors
import signal
import socket
import sys
from typing import Any, Callable, Dict, Optional

_LONGEST = 60_000
_AT_ONCE = 100
"""Datagrams that are read before the job's output is looked at again."""

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

    def close(self) -> None:
        """Reads what has arrived, and stops listening."""
        if self._socket is not None:
            self._receive()
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _receive(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data = self._socket.recv(_LONGEST + 1)  # type: ignore[union-attr]
            except OSError:  # nothing more is there
                return
            sample = self._signer.read(data)  # type: ignore[union-attr]
            if sample is not None and 0 < sample["node"] < self._nodes:
                self._record("sample", sample)


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
        address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
        if not address or not port or len(text) > _LONGEST - 32:
            return
        try:
            found = socket.getaddrinfo(address, int(port), type=socket.SOCK_DGRAM)
            # IPv4 first: the first node listens there in any case.
            for family, kind, protocol, _, target in sorted(found, key=lambda each: each[0] != socket.AF_INET):
                with socket.socket(family, kind, protocol) as sender:
                    sender.setblocking(False)
                    sender.sendto(self._sign(text) + text, target)
                    return
        except (OSError, ValueError):
            return  # it costs this sample

    def read(self, data: bytes) -> Optional[Dict[str, Any]]:
        """Returns the sample in a datagram; None for one that is not of this job."""
        import hmac

        if not hmac.compare_digest(data[:32], self._sign(data[32:])):
            return None
        sample = json.loads(data[32:])
        values = {
            name: value
            for name, value in sample["values"].items()
            if _NAME.fullmatch(name) and isinstance(value, (int, float)) and math.isfinite(value)
        }
        return {"node": int(sample["node"]), "values": values}

    def _sign(self, text: bytes) -> bytes:
        import hashlib
        import hmac

        return hmac.new(self._key, text, hashlib.sha256).digest()


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
