"""Says what the nearest earlier run did not have in common with a run that was not spared by it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from nemo_airflow.artifacts.presence import locate_artifacts
from nemo_airflow.cli.output import JSON, print_json
from nemo_airflow.cli.terminal import keep_output_clean
from nemo_airflow.exceptions import NemoAirflowError, TrackingError
from nemo_airflow.job import JobState
from nemo_airflow.tracking.base import INPUT
from nemo_airflow.tracking.mlflow.jobs import JobRun, JobRuns
from nemo_airflow.tracking.mlflow.reuse import read_result
from nemo_airflow.tracking.reuse import ANY_AGE, REUSE, WITHIN, Identity, age_text

_LOOKED_AT = 500
"""Earlier runs, the newest, among which the nearest is."""

_SHOWN = 3
"""Values of the config that are named."""


def run(what: str, *, output: str, tracking_uri: str | None, conn_id: str | None) -> int:
    """Prints why a run was not reused from an earlier one; returns 0.

    Args:
        what: A run's id, or a job's key or the beginning of one.
        output: ``text`` or ``json``.
        tracking_uri: MLflow's address, or None.
        conn_id: An Airflow connection with MLflow's address and login, or None.

    Raises:
        TrackingError: There is no such run, it does not say what is compared, or MLflow is away.
    """
    keep_output_clean()
    runs = JobRuns(tracking_uri, conn_id)
    found = runs.find(what)
    identity = Identity.from_tags(found.tags)
    if identity is None:
        raise TrackingError(
            f"run {found.run_id} does not record what is compared with earlier runs: no task has submitted it, or an "
            "earlier release, or its config has a secret"
        )
    which = f"tags.`{REUSE}` LIKE '%' AND attributes.start_time < {round(found.began * 1000)}"
    earlier = _nearest(found, identity, runs.matching(which, _LOOKED_AT))
    why = {}
    if earlier is not None:
        why = dict(_differences(found, identity, earlier, read_result(earlier.run_id, tracking_uri, conn_id)))
    if WITHIN not in found.tags:
        why["reuse"] = "its task did not ask for an earlier run: give the operator reuse=True"
    if output == JSON:
        print_json({"run_id": found.run_id, "earlier": earlier.run_id if earlier else None, "why": why})
        return 0
    if earlier is None:
        print(f"no run before {found.key} says what is compared: it was the first")
    else:
        ended = f"{age_text(max(time.time() - earlier.ended_at, 0))} ago" if earlier.ended_at else "not ended"
        print(f"nearest earlier run: {earlier.key} ({earlier.state}, {ended}, run {earlier.run_id})")
        if not why:
            print("it is the same, and can be reused: the tracker was away then, or another task ran it")
    for name, text in why.items():
        print(f"{name}: {text}")
    return 0


def _nearest(run: JobRun, identity: Identity, earlier: list[JobRun]) -> JobRun | None:
    """Returns the run with most in common; of these that of the same task, and then the newest."""

    def common(other: JobRun) -> tuple[int, bool, bool, float]:
        theirs = Identity.from_tags(other.tags)
        same = sum(mine == vars(theirs)[name] for name, mine in vars(identity).items()) if theirs else 0
        is_same_task = (other.dag_id, other.task_id) == (run.dag_id, run.task_id)
        return same, is_same_task, other.state == JobState.SUCCEEDED, other.began

    return max((each for each in earlier if each.run_id != run.run_id), key=common, default=None)


def _differences(run: JobRun, mine: Identity, earlier: JobRun, result: object) -> Iterator[tuple[str, str]]:
    theirs = Identity.from_tags(earlier.tags)
    assert theirs is not None  # noqa: S101 - for the type checker: the search asked for it
    if mine.plan != theirs.plan:
        yield "plan", _changed_params(run, earlier)
    if mine.package != theirs.package:
        compared = f"'nemo-airflow diff {earlier.run_id} {run.run_id}' shows the changes"
        yield "package", f"{mine.package[:12] or 'none'}, and {theirs.package[:12] or 'none'} then: {compared}"
    if mine.inputs != theirs.inputs:
        names = sorted(
            name.removeprefix(INPUT)
            for name in {*run.tags, *earlier.tags}
            if name.startswith(INPUT) and _digest(run, name) != _digest(earlier, name)
        )
        yield "inputs", f"{', '.join(names) or 'their order'} had another digest"
    if mine.image != theirs.image:
        yield "image", f"{mine.image}, and {theirs.image} then"
    if mine.env != theirs.env:
        yield "environment", "another variable, or another value of one"
    if earlier.state != JobState.SUCCEEDED:
        yield "state", f"the earlier run is {earlier.state}: only one that succeeded is reused"
    elif earlier.ended_at is None or earlier.ended_at > run.began:
        yield "state", "the earlier run had not ended when this one began"
    within = run.tags.get(WITHIN, ANY_AGE)
    if within != ANY_AGE and earlier.ended_at and (age := run.began - earlier.ended_at) > float(within):
        yield "age", f"the earlier run had ended {age_text(age)} before, and {age_text(float(within))} are allowed"
    if earlier.state == JobState.SUCCEEDED:
        if result is None:
            yield "artifacts", "what the earlier run returned is not recorded, or was deleted"
            return
        try:
            locate_artifacts(result)
        except NemoAirflowError as error:
            yield "artifacts", str(error)


def _digest(run: JobRun, tag: str) -> str:
    return run.tags.get(tag, "").rpartition(" ")[2]


def _changed_params(run: JobRun, earlier: JobRun) -> str:
    names = [
        name
        for name in dict.fromkeys([*run.params, *earlier.params])
        if run.params.get(name) != earlier.params.get(name) and not name.startswith("nemo_airflow.")
    ]
    if not names:
        return "its shape differs, and no value"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    shown = (f"{name} is {run.params.get(name)}, and {earlier.params.get(name)} then" for name in names[:_SHOWN])
    return "; ".join(shown) + more
