"""The steps at which a worker or a triggerer kills itself, and where in the code they are.

Nothing of this is in the code itself: the process that is to die wraps the function that does the step. A step whose
function is no longer there is an error; one that is never reached fails its test, as the process did not die.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Seam:
    """A function that does a step.

    Attributes:
        where: The function, as ``"pkg.mod:Class.name"``; defined there, not inherited.
        when: Which of its calls are meant, told by their arguments.
    """

    where: str
    when: Callable[..., bool] = lambda *arguments, **keywords: True


def _has_end(follower: Any, items: Any, *_: Any) -> bool:
    return any(getattr(item, "type", "") == "end" for item in items)


WORKER = {
    "attempt noted": Seam("nemo_airflow.operators.attempt:remember"),
    "submit": Seam("nemo_airflow.operators.back_end:BackEnd.submit"),
    "submit's answer": None,
    "deferral": Seam("kill_processes:Told.deferral"),
    "event taken": Seam("nemo_airflow.operators.run:NemoRunOperator.execute_complete"),
    "outputs collected": Seam("nemo_airflow.operators.keeping:Keeping._collect"),
    "outputs kept": Seam("nemo_airflow.operators.keeping:Keeping._put"),
    "outputs noted": Seam("nemo_airflow.operators.keeping:Keeping._note"),
    "released": None,
}
TRIGGERER = {
    "first line read": Seam("nemo_airflow.triggers.task_log:TaskLog.write"),
    "end seen": Seam("nemo_airflow.follow:Follower._pass_on", _has_end),
    "end recorded": Seam("nemo_airflow.tracking.run:RunSink.finish"),
    "event sent": Seam("kill_processes:Told.event"),
}
CHAIN = {
    "stop noted": Seam("nemo_airflow.operators.attempt:consume"),
    "next attempt noted": Seam("nemo_airflow.operators.attempt:remember", lambda _, attempt: bool(attempt.run_key)),
    "next submit": Seam(
        "nemo_airflow.operators.back_end:BackEnd.submit", lambda _, request: request.key.endswith("-2")
    ),
}
"""Steps of a worker that continues a job which has stopped before it was done."""

STARTS = {
    "local": Seam("nemo_airflow.executors.local:LocalDriver._spawn"),
    "ssh": Seam("nemo_airflow.executors.ssh.driver:SSHDriver._launch"),
    "slurm": Seam("nemo_airflow.executors.batch.driver:BatchDriver._launch"),
    "gridengine": Seam("nemo_airflow.executors.batch.driver:BatchDriver._launch"),
    "docker": Seam("nemo_airflow.executors.docker.api:Docker.start"),
    "kubernetes": Seam("nemo_airflow.executors.kubernetes.submission:Submission._make_pods"),
    "ray": Seam("nemo_airflow.executors.ray.api:RayApi.submit"),
}
"""What has a back-end start a job, halfway through ``submit``: after it the job runs, and nobody was told."""

RELEASES = {"kubernetes": Seam("nemo_airflow.executors.kubernetes.driver:KubernetesDriver.release")}
OTHER_RELEASE = Seam("nemo_airflow.executors.base:Driver.release")

_IN_WORKER = " in the worker"

FOLLOWED_BY_WORKER = [f"{step}{_IN_WORKER}" for step in ("first line read", "end seen", "end recorded", "outputs kept")]
"""Steps of the triggerer that a worker does as well, where it follows the job to its end."""

STEPS = [f"{when} {step}" for step in (*WORKER, *TRIGGERER, *FOLLOWED_BY_WORKER) for when in ("before", "after")]


CHAIN_STEPS = ["before stop noted", "after stop noted", "after next attempt noted", "after next submit"]


def is_in_worker(step: str) -> bool:
    """Returns whether it is the worker that does the step, of those that both do."""
    return step.endswith(_IN_WORKER)


def seam_of(step: str, kind: str) -> Seam:
    """Returns where the step of a name (without before or after) is, on a back-end."""
    if step == "submit's answer":
        return STARTS[kind]
    if step == "released":
        return RELEASES.get(kind, OTHER_RELEASE)
    seam = {**WORKER, **TRIGGERER, **CHAIN}[step]
    assert seam is not None
    return seam


def die_at(step: str, kind: str, marker: Path) -> None:
    """Has this process kill itself (SIGKILL) when it comes to the step; it leaves the marker then.

    Raises:
        LookupError: The code has no such place any more.
    """
    when, _, name = step.removesuffix(_IN_WORKER).partition(" ")
    seam = seam_of(name, kind)
    module, _, path = seam.where.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, function = path.split(".")
    for each in classes:
        owner = vars(owner).get(each)
    if owner is None or function not in vars(owner):
        raise LookupError(f"step {name!r} is at {seam.where}, which is not there: say in {__file__} where it is now")
    setattr(owner, function, _deadly(vars(owner)[function], seam.when, marker, dies_before=when == "before"))


def _deadly(call: Any, when: Callable[..., bool], marker: Path, *, dies_before: bool) -> Any:
    def die() -> None:
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(call)
    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        meant = when(*arguments, **keywords)
        if meant and dies_before:
            die()
        answer = call(*arguments, **keywords)
        if meant:
            die()
        return answer

    @functools.wraps(call)
    async def awaited(*arguments: Any, **keywords: Any) -> Any:
        meant = when(*arguments, **keywords)
        if meant and dies_before:
            die()
        answer = await call(*arguments, **keywords)
        if meant:
            die()
        return answer

    return awaited if inspect.iscoroutinefunction(call) else wrapped
