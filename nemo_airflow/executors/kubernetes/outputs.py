"""Fetches the outputs of a job's pods, which wait a while for that after their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, OutputsLost
from nemo_airflow.executors.base import LeaveOut
from nemo_airflow.executors.intake import Below, Intake
from nemo_airflow.executors.kubernetes import manifest
from nemo_airflow.executors.kubernetes.cluster import Cluster
from nemo_airflow.executors.kubernetes.logs import PodLog
from nemo_airflow.executors.kubernetes.pod import container_end, has_started, is_over, label, name_of, python_of
from nemo_airflow.executors.kubernetes.pods import Pods
from nemo_airflow.executors.kubernetes.transfer import fetch_outputs
from nemo_airflow.job import JsonObject

_AT_ONCE = 8
_OTHERS_END_WITHIN = 120.0
"""Seconds after the end of the first pod of a group within which the others end too: some are still being started."""


class Outputs:
    """The outputs of the jobs of one namespace.

    Args:
        cluster: The cluster.
        pods: The pods as last heard of.
    """

    def __init__(self, cluster: Cluster, pods: Pods) -> None:
        self._cluster = cluster
        self._pods = pods

    async def collect(
        self,
        pods: Iterable[JsonObject],
        into: Path,
        leave_out: LeaveOut | None = None,
        intake: Intake | None = None,
    ) -> list[Path]:
        """Copies the outputs of a job's pods into a folder, those of other pods than the first below ``node-<rank>``.

        Returns:
            Their paths relative to the folder, sorted.

        Raises:
            ExecutorError: Those of some pods cannot be had; what the others have is in the folder.
            BackendUnavailable: The API server cannot be reached.
        """
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def of(pod: JsonObject) -> list[Path]:
            rank = label(pod, manifest.RANK)
            below = Path(f"node-{rank}") if rank != "0" else Path()
            taken = intake if intake is None or rank == "0" else Below(intake, below.as_posix())
            async with at_once:
                return [below / path for path in await self._of(pod, into / below, leave_out, taken)]

        # At once, since none waits for ever; and all to their end, since the folder may be emptied after an error.
        answers = await asyncio.gather(*map(of, pods), return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        for error in errors:
            if not isinstance(error, ExecutorError) or isinstance(error, BackendUnavailable):
                raise error
        if errors:
            lost = any(isinstance(error, OutputsLost) for error in errors)
            raise (OutputsLost if lost else ExecutorError)("; ".join(map(str, errors)))
        return sorted(path for answer in answers if isinstance(answer, list) for path in answer)

    async def _of(self, pod: JsonObject, into: Path, leave_out: LeaveOut | None, intake: Intake | None) -> list[Path]:
        name = name_of(pod)
        pod, end, over = await self._await_end(pod)
        if (end is not None and not end.get("outputs", {}).get("files")) or (over and not has_started(pod)):
            return []
        if end is None and not over:
            raise ExecutorError(
                f"pod {name} still runs {_OTHERS_END_WITHIN:.0f} s after the job's end: its outputs are not collected"
            )
        if end is None or over:
            raise OutputsLost(
                f"the outputs of pod {name} are gone: it ended before they were fetched; linger gives more time"
            )
        return await fetch_outputs(self._cluster, name, python_of(pod), into, leave_out, intake)

    async def _await_end(self, pod: JsonObject) -> tuple[JsonObject, JsonObject | None, bool]:
        """Returns the pod, its runner's last record, and whether nothing of it runs any more.

        The pods of a group do not end at the very same moment.
        """
        log = PodLog(self._cluster, name_of(pod))
        give_up = time.monotonic() + _OTHERS_END_WITHIN
        over = _has_ended(pod)
        while True:
            end = await log.end_record() if has_started(pod) else None
            if end is not None or over or time.monotonic() > give_up:
                return pod, end, over
            await asyncio.sleep(0.5)
            looked = await self._pods.look()
            over = name_of(pod) not in looked or _has_ended(looked[name_of(pod)])
            pod = looked.get(name_of(pod), pod)


def _has_ended(pod: JsonObject) -> bool:
    return container_end(pod) is not None or is_over(pod)
