"""One run for a key, however many look for it, and whatever goes wrong on the way."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from tracking_cases import make_job, open_run

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.job import JobState, JobStatus
from nemo_airflow.tracking.base import RunRef
from nemo_airflow.tracking.mlflow import MLflowTracker, runs
from nemo_airflow.tracking.mlflow import tracker as tracker_module
from nemo_airflow.tracking.mlflow.fields import KEY
from nemo_airflow.tracking.mlflow.store import Run, Store

AT_ONCE = 6


def open_at_once(barrier: Barrier, uri: str, experiment: str, key: str, parent: str) -> tuple[str, str, str]:
    tracker = MLflowTracker(tracking_uri=uri)
    barrier.wait(300)
    ref = tracker.open(make_job(key), experiment=experiment, parent=parent, shares_filesystem=True)
    return ref.experiment_id, ref.parent_id, ref.run_id


@pytest.mark.parametrize("same_key", [False, True], ids=["of-several-tasks", "of-one-task"])
def test_processes_that_start_at_once_share_experiment_parent_and_run(uri: str, store: Store, same_key: bool) -> None:
    name = f"at-once-{same_key}-{time.time()}"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "nemo_airflow.tracking.mlflow.client"])
    with context.Manager() as manager, context.Pool(AT_ONCE) as pool:
        barrier = manager.Barrier(AT_ONCE)
        keys = [f"{name}-{0 if same_key else n}" for n in range(AT_ONCE)]
        found = pool.starmap(open_at_once, [(barrier, uri, name, key, name) for key in keys], chunksize=1)

    experiments, parents, children = (set(ids) for ids in zip(*found, strict=True))
    assert len(experiments) == 1
    assert len(parents) == 1
    assert len(children) == (1 if same_key else AT_ONCE)
    (experiment,), (parent,) = experiments, parents
    assert [run.run_id for run in store.search(experiment, "nemo_airflow.parent", name)] == [parent]
    for key in {make_job(key).key for key in keys}:
        assert len(store.search(experiment, KEY, key)) == 1
    assert store.experiment(name) == experiment


class LostAnswer:
    """A store whose first answer to a request that makes a run gets lost: the run is made."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.made: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        run = self._store.create_run(experiment_id, name, tags, start_ms)
        self.made.append(run.run_id)
        if len(self.made) == 1:
            raise TrackingError("no answer", transient=True)
        return run


def test_a_run_that_was_made_without_an_answer_is_found_again(
    store: Store, tracker: MLflowTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlucky = LostAnswer(store)
    monkeypatch.setattr(tracker_module, "open_store", lambda *_: unlucky)
    job = make_job(f"lost-answer-{time.time()}")
    ref = open_run(tracker, job, parent="")  # the parent's answer is the lost one
    assert [run.run_id for run in store.search(ref.experiment_id, KEY, job.key)] == [ref.run_id]
    assert unlucky.made == [ref.parent_id, ref.run_id]


def test_a_ghost_that_appears_late_is_deleted_at_the_end(tracker: MLflowTracker, store: Store, opened: RunRef) -> None:
    key = store.run(opened.run_id).tags[KEY]
    store.create_run(opened.experiment_id, "ghost", {KEY: key}, 0)
    assert len(store.search(opened.experiment_id, KEY, key)) == 2
    tracker.ended(opened, JobStatus(JobState.SUCCEEDED))
    assert [run.run_id for run in store.search(opened.experiment_id, KEY, key)] == [opened.run_id]


def test_a_candidate_that_was_settled_for_a_run_that_is_gone_is_replaced(store: Store, opened: RunRef) -> None:
    stale = store.create_run(opened.experiment_id, "stale", {KEY: "stale-key"}, 0)
    store.write_once(stale.run_id, runs.STANDS_FOR, "0" * 32)
    found = runs.find_or_create_run(store, opened.experiment_id, "stale-key", name="new", tags=dict)
    assert found.run_id != stale.run_id
    assert [run.run_id for run in store.search(opened.experiment_id, KEY, "stale-key")] == [found.run_id]


def test_the_run_that_stands_for_itself_wins_over_a_smaller_id(store: Store, opened: RunRef) -> None:
    made = [store.create_run(opened.experiment_id, "candidate", {KEY: "candidates"}, 0).run_id for _ in range(3)]
    store.write_once(max(made), runs.STANDS_FOR, max(made))
    found = runs.find_or_create_run(store, opened.experiment_id, "candidates", name="new", tags=dict)
    assert found.run_id == max(made)


def test_a_deleted_experiment_is_named_in_the_error(uri: str, tmp_path: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(uri)
    client.delete_experiment(client.create_experiment("was-deleted", tmp_path.as_uri()))
    with pytest.raises(TrackingError, match="experiment 'was-deleted' was deleted"):
        MLflowTracker(tracking_uri=uri, experiment="was-deleted").open(
            make_job("x"), experiment="ignored", parent="p", shares_filesystem=True
        )
