"""Finds runs in MLflow that can be reused, and gives of several tasks that find none one the right to run.

A claim is a run in an experiment of its own, which all tasks that ask for the same agree on
(:mod:`nemo_airflow.tracking.mlflow.runs`), with a parameter that names its holder: MLflow lets a parameter be written
once, on any store and from any machine. Who reads another name waits until that run is deleted, which its holder does
when its task ends. A claim is only ever deleted by its id, so that nobody ends a later one by mistake.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from nemo_airflow.connections import redact
from nemo_airflow.exceptions import TrackingError
from nemo_airflow.job import JobHandle, JobState
from nemo_airflow.tracking.base import RunRef
from nemo_airflow.tracking.mlflow import address, fields, runs
from nemo_airflow.tracking.mlflow.queries import RunQuery
from nemo_airflow.tracking.mlflow.store import INVALID, NEWEST_END_FIRST, NOT_FOUND, Run, Store, open_store
from nemo_airflow.tracking.reuse import RESULT, REUSE, REUSED_BY, Asker, Claim, EarlierRun, EarlierRuns, Identity

CLAIMS = "nemo_airflow.reuse"
"""The experiment of the claims."""

_HOLDER = "nemo_airflow.holder"
"""Parameter and tag of a claim with its holder."""

_KEEPING = 600.0
"""Seconds after a claim, and after the end of its job, for which its task has time to open a run, and to keep what the
job has left. A task that takes longer has died."""

_LOOKED_AT = 5
"""Runs that are looked at, the newest: of others artifacts may be gone too."""

_NAMED = 50
"""Tasks that a run names as those that have reused it."""


class MLflowEarlierRuns(EarlierRuns):
    """See :class:`EarlierRuns`.

    Args:
        store: The store.
        page: Returns the address of a run's page by the ids of its experiment and its own.
    """

    def __init__(self, store: Store, page: Callable[[str, str], str]) -> None:
        self._store = store
        self._page = page

    def find(self, identity: Identity, since: float | None) -> Iterator[EarlierRun]:
        """See :meth:`EarlierRuns.find`."""
        which = f"tags.`{REUSE}` = '{identity.digest}' AND tags.`{fields.STATE}` = '{JobState.SUCCEEDED}'"
        if since is not None:
            which += f" AND attributes.end_time >= {round(since * 1000)}"
        for run in self._store.search_jobs(which, [NEWEST_END_FIRST], _LOOKED_AT)[0]:
            # A run that goes on keeps its last end.
            if run.status == "FINISHED" and (text := self._store.read(run, RESULT)) is not None:
                yield self._earlier(run, json.loads(text))

    def claim(self, identity: Identity, asker: Asker) -> Claim:
        """See :meth:`EarlierRuns.claim`."""
        where = address.artifact_location(self._store.uri, self._experiment_name)
        experiment = runs.find_or_create_experiment(self._store, self._experiment_name, where)
        while True:
            found = runs.find_or_create_run(
                self._store,
                experiment,
                f"reuse-{identity.digest}",
                name=str(asker),
                tags=lambda: fields.clean_tags(
                    {fields.NOTE: f"Keeps other tasks from running what {asker} runs; it is deleted when that ends."}
                ),
            )
            holder = self._hold(found, asker.digest)
            if holder is None:  # deleted meanwhile
                continue
            if holder == asker.digest:
                self._store.log(found.run_id, tags={_HOLDER: holder, **_labels(asker)})
            return Claim(found.run_id, identity.digest, holder, found.name, found.start_ms / 1000)

    def holds(self, claim: Claim) -> bool:
        """See :meth:`EarlierRuns.holds`."""
        experiment = self._store.experiment(self._experiment_name)
        found = self._store.search(experiment, fields.KEY, f"reuse-{claim.identity}") if experiment else []
        held = next((run for run in found if run.run_id == claim.id), None)
        if held is None:
            return False
        now = time.time()
        run = self._run_of(held, claim.since)
        if run is None:
            return now - claim.since < _KEEPING
        if not (state := run.tags.get(fields.STATE)):
            return True
        return state == JobState.SUCCEEDED and now - (run.end_ms or 0) / 1000 < _KEEPING

    def drop(self, claim: Claim) -> None:
        """See :meth:`EarlierRuns.drop`."""
        self._delete(claim.id)

    def release(self, asker: Asker) -> None:
        """See :meth:`EarlierRuns.release`."""
        if experiment := self._store.experiment(self._experiment_name):
            for run in self._store.search(experiment, _HOLDER, asker.digest):
                self._delete(run.run_id)

    def note_reuse(self, run: EarlierRun, asker: Asker) -> None:
        """See :meth:`EarlierRuns.note_reuse`. One tag for each, so that none overwrites another's."""
        tag = f"{REUSED_BY}{asker.digest}"
        named = [name for name in self._store.run(run.ref.run_id).tags if name.startswith(REUSED_BY)]
        if tag in named or len(named) < _NAMED:
            at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            self._store.log(run.ref.run_id, tags=fields.clean_tags({tag: f"{at} {redact(str(asker))}"}))

    def _earlier(self, run: Run, result: object) -> EarlierRun:
        def tag(name: str) -> str:
            return run.tags.get(f"nemo_airflow.{name}", "")

        ref = RunRef(
            uri=address.hide_login(self._store.uri),
            experiment_id=run.experiment_id,
            run_id=run.run_id,
            parent_id=run.tags.get(fields.PARENT, ""),
            url=self._page(run.experiment_id, run.run_id),
        )
        handle = JobHandle(tag("key"), tag("backend"), tag("job_id"), tag("cluster"), run.start_ms / 1000)
        return EarlierRun(ref, handle, (run.end_ms or 0) / 1000, result)

    @property
    def _experiment_name(self) -> str:
        return f"/Shared/{CLAIMS}" if self._store.uri.startswith("databricks") else CLAIMS

    def _hold(self, claim: Run, holder: str) -> str | None:
        """Returns the holder of a claim, which is the one that asks if there was none; None if it was deleted."""
        if (written := claim.params.get(_HOLDER)) is not None:
            return written
        try:
            self._store.write_once(claim.run_id, _HOLDER, holder)
        except TrackingError as error:
            if error.code not in (INVALID, "INVALID_STATE", NOT_FOUND) and not error.transient:
                raise
            written = self._store.run(claim.run_id).params.get(_HOLDER)
            if written is None and error.transient:
                raise
            return written
        return holder

    def _run_of(self, claim: Run, since: float) -> Run | None:
        """Returns the newest run of a claim's holder that began since then, to the second before."""
        labels = {name: claim.tags[name] for name in _LABELS if name in claim.tags}
        if not labels:  # its holder has just written its name, or died when it had
            return None
        query = RunQuery(tags=labels, since=since - 1)
        found, _ = self._store.search_jobs(query.to_filter(), query.to_order(), 1)
        return found[0] if found else None

    def _delete(self, run_id: str) -> None:
        try:
            self._store.delete_run(run_id)
        except TrackingError as error:  # another was faster
            if error.code not in (NOT_FOUND, INVALID, "INVALID_STATE"):
                raise


def read_result(run_id: str, tracking_uri: str | None = None, conn_id: str | None = None) -> Any:
    """Returns what the job of a run returned, as plain JSON types; None where that is not recorded. Blocks.

    A function that returned nothing has ``{}`` as its result here, so that it is told from one without a record.

    Args:
        run_id: The run's id.
        tracking_uri: Address of the store; found as for a tracker when None.
        conn_id: An Airflow connection with the address and the login.

    Raises:
        TrackingError: There is no such run, or the store cannot be reached.
    """
    store = open_store(*address.resolve(tracking_uri, conn_id))
    text = store.read(store.run(run_id), RESULT)
    return None if text is None else json.loads(text) or {}


_LABELS = ("airflow.dag_id", "airflow.run_id", "airflow.task_id", "airflow.map_index")


def _labels(asker: Asker) -> dict[str, str]:
    """Returns the tags by which the run of a task is found."""
    return dict(zip(_LABELS, (asker.dag_id, asker.run_id, asker.task_id, asker.map_index), strict=True))
