"""Sends packages into pods and fetches outputs from them, over the WebSocket of a command in the pod."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError
from nemo_airflow.executors.base import LeaveOut
from nemo_airflow.executors.bundle import runner_entry
from nemo_airflow.executors.intake import Intake
from nemo_airflow.executors.kubernetes import manifest
from nemo_airflow.executors.kubernetes.cluster import Cluster
from nemo_airflow.executors.outputs import extract_stream
from nemo_airflow.progress import Progress

_STDIN, _STDOUT, _STDERR, _END = 0, 1, 2, 3
"""Streams of a command, the first byte of each message of ``v4.channel.k8s.io``."""

_PIECE = 1 << 18
_SILENCE = 120.0
"""Seconds without a byte after which a transfer counts as broken."""


async def send_file(cluster: Cluster, pod: str, python: str, source: Path, target: str, progress: Progress) -> None:
    """Sends a file into a pod's container; it appears there whole.

    Raises:
        BackendUnavailable: The transfer broke off; it can be made again.
        ExecutorError: The pod could not take it.
    """
    size = await asyncio.to_thread(lambda: source.stat().st_size)
    command = [python, "-c", manifest.program("receive"), target, str(size)]
    doing = f"send the package to pod {pod}"
    async with cluster.execute(pod, manifest.CONTAINER, command, doing) as socket:
        with await asyncio.to_thread(source.open, "rb") as file:
            while data := await asyncio.to_thread(file.read, _PIECE):
                async with asyncio.timeout(_SILENCE):
                    await socket.send_bytes(bytes([_STDIN]) + data)
                progress.add(len(data))
        async for _ in _output(socket, doing):
            continue


async def fetch_outputs(
    cluster: Cluster,
    pod: str,
    python: str,
    into: Path,
    leave_out: LeaveOut | None = None,
    intake: Intake | None = None,
) -> list[Path]:
    """Fetches the outputs of a job whose runner waits for that; returns their paths relative to the folder.

    Raises:
        BackendUnavailable: The transfer broke off; it can be made again.
        ExecutorError: The pod has ended.
    """
    command = [python, "-c", manifest.program("collect"), manifest.BASE, runner_entry()]
    doing = f"fetch the outputs of pod {pod}"
    async with cluster.execute(pod, manifest.CONTAINER, command, doing) as socket:
        # The archive says itself where it ends; the command waits until it is told that all has come.
        return await extract_stream(_output(socket, doing), into, leave_out, intake)


async def release(cluster: Cluster, pod: str, python: str) -> None:
    """Tells the runner of a pod that it need not wait for its outputs to be fetched any more.

    Raises:
        BackendUnavailable: The cluster cannot be reached.
        ExecutorError: The pod has ended.
    """
    command = [python, "-c", manifest.program("release"), manifest.BASE]
    doing = f"release pod {pod}"
    async with cluster.execute(pod, manifest.CONTAINER, command, doing) as socket:
        async for _ in _output(socket, doing):
            continue


async def _output(socket: Any, doing: str) -> AsyncIterator[bytes]:
    """Yields what a command writes, until it has ended.

    Raises:
        ExecutorError: It ended with an error.
        BackendUnavailable: The connection broke off before that.
    """
    errors = b""
    while True:
        try:
            async with asyncio.timeout(_SILENCE):
                message = await socket.receive()
        except TimeoutError as error:
            raise BackendUnavailable(f"cannot {doing}: no data for {_SILENCE:.0f} s") from error
        if not isinstance(message.data, bytes):
            raise BackendUnavailable(f"cannot {doing}: the connection was closed")
        stream, data = message.data[0], message.data[1:]
        if stream == _STDOUT and data:
            yield data
        elif stream == _STDERR:
            errors = (errors + data)[-2000:]
        elif stream == _END:
            end = json.loads(data)
            if end.get("status") == "Success":
                return
            said = errors.decode(errors="replace").strip().splitlines()
            raise ExecutorError(f"cannot {doing}: {said[-1] if said else end.get('message')}")
