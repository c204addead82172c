"""Finds or creates the one run of a key, also when several processes do so at once.

MLflow allows any number of runs with the same tags, and a request to create one may
have succeeded although no answer arrived. But a parameter of a run can be written only once,
and the store ensures that. So each candidate run has a parameter that names the run it stands
for, and a process settles them in an order in which only one can come to stand for itself:

1. It searches for candidates, and creates one if there are none.
2. It takes the one with the smallest id, and tries to write that id into each *other*
   candidate. One that already stands for itself is the run, and it is done.
3. Then it writes the id into the candidate itself.

Suppose that X and a greater Y both came to stand for themselves. Whoever settled Y did not see
X, so X was created after that search. Whoever settled X did not see Y, or would have written X into
it first; so Y was created after that other search. Each was created before its own search: a cycle in
time, which is impossible. A process that dies midway leaves nothing that the next one cannot
finish.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.tracking.mlflow.fields import KEY
from nemo_airflow.tracking.mlflow.store import ALREADY_EXISTS, INVALID, NOT_FOUND, Run, Store

STANDS_FOR = "nemo_airflow.run"

_ROUNDS = 10


def find_or_create_experiment(store: Store, name: str, artifact_location: str | None) -> str:
    """Returns the id of the experiment of that name; creates it if needed."""
    if (found := store.experiment(name)) is not None:
        return found
    try:
        return store.create_experiment(name, artifact_location)
    except TrackingError as error:
        # Another process was faster; a database without a server may report a failed constraint.
        if error.code != ALREADY_EXISTS and not error.transient:
            raise
        if (found := store.experiment(name)) is None:
            raise
        return found


def find_or_create_run(
    store: Store,
    experiment_id: str,
    key: str,
    *,
    name: str,
    tags: Callable[[], Mapping[str, str]],
    start_ms: int | None = None,
) -> Run:
    """Returns the run of a key; creates it if needed.

    Args:
        store: The store.
        experiment_id: The run's experiment.
        key: Value of the run's tag ``nemo_airflow.key``, without quotes.
        name: Name of a new run, for people.
        tags: Returns the tags of a new run.
        start_ms: When a new run has begun, in milliseconds since the epoch; now if None.
    """
    for _ in range(_ROUNDS):
        candidates = {run.run_id: run for run in store.search(experiment_id, KEY, key)}
        if not candidates:
            store.create_run(experiment_id, name, {**tags(), KEY: key}, start_ms or round(time.time() * 1000))
            continue
        if (winner := _settle(store, candidates)) is not None:
            for loser in candidates.keys() - {winner.run_id}:
                _delete(store, loser)
            return winner
    raise TrackingError(
        f"run {key!r} in the MLflow store {store.uri} is repeatedly created and deleted by others", transient=True
    )


def delete_ghosts(store: Store, run: Run) -> None:
    """Deletes other runs of the same key, left by requests that succeeded after their time-out."""
    key = run.tags.get(KEY)
    if key is None:
        return
    for other in store.search(run.experiment_id, KEY, key):
        if other.run_id != run.run_id:
            _delete(store, other.run_id)


def _settle(store: Store, candidates: Mapping[str, Run]) -> Run | None:
    """Returns the candidate that stands for itself; None when the search has to be repeated."""
    for run in candidates.values():
        if run.params.get(STANDS_FOR) == run.run_id:
            return run
    smallest = min(candidates)
    for run_id in sorted(candidates.keys() - {smallest}):
        if _write(store, run_id, smallest) == run_id:
            return candidates[run_id]
    if _write(store, smallest, smallest) == smallest:
        return candidates[smallest]
    # It stands for a smaller one that the search did not find, so it can never be the run.
    _delete(store, smallest)
    return None


def _write(store: Store, run_id: str, value: str) -> str | None:
    """Writes which run a run stands for, unless already written; returns the written value, None for a deleted run."""
    try:
        store.write_once(run_id, STANDS_FOR, value)
        return value
    except TrackingError as error:
        if error.code == NOT_FOUND:
            return None
        if error.code not in (INVALID, "INVALID_STATE") and not error.transient:
            raise
        try:
            written = store.run(run_id).params.get(STANDS_FOR)
        except TrackingError as gone:
            if gone.code == NOT_FOUND:
                return None
            raise
        if written is None and error.transient:
            raise
        return written


def _delete(store: Store, run_id: str) -> None:
    try:
        store.delete_run(run_id)
    except TrackingError as error:
        # Already deleted, or left to delete_ghosts(): the right run is settled.
        if not error.transient and error.code not in (NOT_FOUND, INVALID, "INVALID_STATE"):
            raise
