"""Runs a command in a job's pod with this process's terminal, over the WebSocket of a command in the pod."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError
from nemo_airflow.executors.kubernetes import manifest
from nemo_airflow.executors.kubernetes.cluster import Cluster
from nemo_airflow.terminal import Terminal

_IN, _OUT, _ERR, _END, _SIZE = range(5)
"""Streams of a command, the first byte of each message of ``v4.channel.k8s.io``."""


async def enter_pod(cluster: Cluster, pod: str, command: Sequence[str], terminal: Terminal) -> int:
    """Runs a command in a pod's container; returns its exit code. Input is passed on from a terminal only.

    Raises:
        BackendUnavailable: The connection broke off.
        ExecutorError: The pod does not take it.
    """
    doing = f"run a command in pod {pod}"
    has_terminal = terminal.is_terminal  # this version of the protocol has no end of input, for which a command waits
    end: dict[str, Any] = {}
    async with cluster.execute(
        pod, manifest.CONTAINER, command, doing, stdin=has_terminal, terminal=has_terminal
    ) as socket:

        async def send(data: bytes) -> None:
            if data and has_terminal:
                await socket.send_bytes(bytes([_IN]) + data)

        async def resize(columns: int, lines: int) -> None:
            size = json.dumps({"Width": columns, "Height": lines}).encode()
            await socket.send_bytes(bytes([_SIZE]) + size)

        async def pass_output() -> None:
            while not end:
                message = await socket.receive()
                if not isinstance(message.data, bytes):
                    raise BackendUnavailable(f"cannot {doing}: the connection was closed")
                stream, data = message.data[0], message.data[1:]
                if stream == _END:
                    end.update(json.loads(data))
                elif data:
                    terminal.write(data, error=stream == _ERR)

        await terminal.connect(send, pass_output(), resize)
    if end.get("status") == "Success":
        return 0
    causes = (end.get("details") or {}).get("causes") or ()
    codes = [cause["message"] for cause in causes if cause.get("reason") == "ExitCode"]
    if not codes:
        raise ExecutorError(f"cannot {doing}: {end.get('message')}")
    return int(codes[0])
