"""Lets a task take the run of an earlier job that was the same for its own, and lets one of several run it."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
import re
import time
from collections.abc import Mapping
from typing import Any

from nemo_airflow.artifact_references import replace_references
from nemo_airflow.artifacts.presence import locate_artifacts
from nemo_airflow.config.plan import digest
from nemo_airflow.connections import redact
from nemo_airflow.exceptions import ConfigError, NemoAirflowError, TrackingError
from nemo_airflow.executors.base import Executor
from nemo_airflow.job import Package
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.masking import masked_plan
from nemo_airflow.operators.preparation import Prepared
from nemo_airflow.runner.inputs import artifacts_in
from nemo_airflow.tracking.base import Tracker
from nemo_airflow.tracking.reuse import ANY_AGE, WITHIN, Asker, Claim, EarlierRun, EarlierRuns, Identity, age_text

_AGE = re.compile(r"(\d+)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

LONGEST_WAIT = 86400.0
"""Seconds for which a task waits for another one that runs the same; then it runs it itself."""


def parse_reuse(reuse: Any) -> float | None:
    """Returns how old a run may be that is reused, in seconds: infinity for any age, None where none is to be.

    Args:
        reuse: The operator's argument: a bool, a text as ``7d``, ``12h`` or ``90m``, a timedelta, or None.

    Raises:
        ConfigError: It is something else.
    """
    if reuse is None or isinstance(reuse, bool):
        return math.inf if reuse else None
    seconds = 0.0
    if isinstance(reuse, datetime.timedelta):
        seconds = reuse.total_seconds()
    elif isinstance(reuse, str) and (age := _AGE.fullmatch(reuse.strip())):
        seconds = float(int(age[1]) * _SECONDS[age[2]])
    if seconds > 0:
        return seconds
    raise ConfigError(
        f"reuse={reuse!r} does not say how old a run may be: write '7d', '12h', '90m' or a timedelta, or True for any "
        "age"
    )


def check_reuse(reuse: Any, tracker: Any, packager: Any, executor: Any) -> None:
    """Checks that a task that is to reuse runs can find them and compare their code.

    Args:
        reuse: The operator's argument.
        tracker: The operator's tracker.
        packager: The operator's packager.
        executor: The operator's executor.

    Raises:
        ConfigError: It says no age; or the tracker cannot search; or nothing says what code a job runs.
    """
    if parse_reuse(reuse) is None:
        return
    if tracker is None:
        raise ConfigError("reuse needs a tracker, which finds earlier runs: leave tracker out, or reuse")
    if isinstance(tracker, Tracker) and type(tracker).earlier_runs is Tracker.earlier_runs:
        raise ConfigError(
            f"reuse needs a tracker that finds earlier runs, and {type(tracker).__name__} has no earlier_runs(): give "
            "an MLflowTracker, or leave reuse out"
        )
    if packager is None and isinstance(executor, Executor) and not _image_of(executor):
        raise ConfigError(
            "reuse needs a packager, or an executor with container_image: nothing else says whether the code is still "
            "the same; give packager=GitArchivePackager()"
        )


def identify(
    prepared: Prepared, executor: Executor, env: Mapping[str, str], package: Package | None
) -> Identity | None:
    """Returns what a job has to have in common with an earlier one that is taken for it; None where it has a secret.

    Two secrets look the same in what is recorded, so runs with one in the config or the environment are not compared.

    Args:
        prepared: What runs.
        executor: Where.
        env: The variables that the task gives.
        package: The code, or None.
    """
    variables = json.dumps({**executor.env, **env}, sort_keys=True)
    if masked_plan(prepared.plan) != prepared.plan or redact(variables) != variables:
        return None
    given = artifacts_in(prepared.plan)
    # Whichever run has made them, and wherever they are.
    bare = replace_references(prepared.plan, {each: Artifact(kind=each.kind, file=each.file) for each in given})
    return Identity(
        plan=digest(bare),
        package=package.digest if package is not None else "",
        inputs=_digest([each.digest for each in given]) if given else "",
        image=_image_of(executor) or " ".join(filter(None, (executor.kind, getattr(executor, "python", None)))),
        env=_digest([variables, sorted(executor.secrets)]),
    )


def asker_of(labels: Mapping[str, str]) -> Asker:
    """Returns the task of a job's labels, as it asks for earlier runs."""
    return Asker(**{field.name: labels.get(field.name, "") for field in dataclasses.fields(Asker)})


def tags_of(identity: Identity | None, within: float | None) -> dict[str, str]:
    """Returns the tags of a run by which later tasks find it.

    Args:
        identity: What is compared; None where the run cannot be reused.
        within: How old a run might be that the task asked for, in seconds; None where it did not ask.
    """
    tags = identity.to_tags() if identity is not None else {}
    if within is not None:
        tags[WITHIN] = ANY_AGE if math.isinf(within) else f"{within:.0f}"
    return tags


@dataclasses.dataclass(frozen=True)
class Reuse:
    """Looks for an earlier run for one try of a task.

    Attributes:
        runs: Where earlier runs are found.
        identity: What has to be the same.
        within: How old a run may be, in seconds.
        asker: The task.
        log: The task's logger.
    """

    runs: EarlierRuns
    identity: Identity
    within: float
    asker: Asker
    log: Any

    def look(self) -> EarlierRun | Claim | None:
        """Returns the run to reuse; or the claim of another task, to wait for; or None where this task is to run.

        Where the tracker is away the task runs, as it does without a tracker.
        """
        try:
            return self._look()
        except TrackingError as error:
            self.log.warning("No earlier run can be looked for, so the job runs: %s", error)
            return None

    def note(self, run: EarlierRun) -> None:
        """Notes on a run that this task has reused it."""
        try:
            self.runs.note_reuse(run, self.asker)
        except TrackingError as error:
            self.log.warning("Run %s does not say that it was reused: %s", run.ref.run_id, error)

    def _look(self) -> EarlierRun | Claim | None:
        while True:
            if (found := self._find()) is not None:
                return found
            claim = self.runs.claim(self.identity, self.asker)
            if claim.holder == self.asker.digest:
                # Another may have ended, and let go, between the search and the claim.
                if (found := self._find()) is not None:
                    self.runs.release(self.asker)
                return found
            if self.runs.holds(claim):
                return claim
            self.runs.drop(claim)

    def _find(self) -> EarlierRun | None:
        since = None if math.isinf(self.within) else time.time() - self.within
        for run in self.runs.find(self.identity, since):
            try:
                return dataclasses.replace(run, result=locate_artifacts(run.result))
            except NemoAirflowError as error:
                if isinstance(error, TrackingError):
                    raise
                self.log.info("Run %s is the same and is not reused: %s", run.ref.run_id, error)
        return None


def begin_reuse(
    identity: Identity | None, within: float, prepared: Prepared, tracker: Tracker, log: Any
) -> Reuse | None:
    """Returns what looks for an earlier run; None where none can be: the log says why.

    Args:
        identity: What has to be the same; None where it cannot be compared.
        within: How old a run may be, in seconds.
        prepared: What runs.
        tracker: The task's tracker.
        log: The task's logger.
    """
    if identity is None:
        log.warning(
            "No earlier run is reused: the config or env has a secret, which cannot be compared: give it by secrets="
        )
        return None
    try:
        runs = tracker.earlier_runs()
    except TrackingError as error:
        log.warning("No earlier run can be looked for, so the job runs: %s", error)
        return None
    return Reuse(runs, identity, within, asker_of(prepared.labels), log) if runs is not None else None


def end_claim(tracker: Tracker, asker: Asker, log: Any) -> None:
    """Lets others run what a task had claimed.

    Args:
        tracker: The task's tracker.
        asker: The task.
        log: The task's logger.
    """
    try:
        runs = tracker.earlier_runs()
        if runs is not None:
            runs.release(asker)
    except TrackingError as error:
        log.warning("Tasks that run the same may wait for some minutes: %s", error)


def describe_reuse(run: EarlierRun) -> str:
    """Returns what the task's log says of a run that is reused."""
    page = f", {run.ref.url}" if run.ref.url else ""
    ago = age_text(max(time.time() - run.ended_at, 0))
    return f"Reused run {run.ref.run_id} of job {run.handle.key}, which succeeded {ago} ago{page}: nothing is submitted"


def _image_of(executor: Executor) -> str:
    return str(getattr(executor, "container_image", None) or getattr(executor, "image_id", None) or "")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
