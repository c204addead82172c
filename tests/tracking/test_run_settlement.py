"""However the steps of processes interleave, and whichever of them die, one run comes out for a key."""

from __future__ import annotations

import dataclasses
import random
import threading
import uuid
from collections.abc import Mapping

import pytest

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.tracking.mlflow.fields import KEY
from nemo_airflow.tracking.mlflow.runs import find_or_create_run
from nemo_airflow.tracking.mlflow.store import INVALID, NOT_FOUND, Run

PROCESSES = 4


class Killed(BaseException):
    """What a process that dies between two requests sees."""


class Turns:
    """Lets threads go one request at a time, in an order that the seed decides; kills some."""

    def __init__(self, seed: int, processes: int, kills: int) -> None:
        self._random = random.Random(seed)
        self._active = processes
        self._kills = kills
        self._condition = threading.Condition()
        self._waiting: set[int] = set()
        self._next: int | None = None
        self._doomed: set[int] = set()

    def wait(self) -> None:
        me = threading.get_ident()
        with self._condition:
            self._waiting.add(me)
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._next == me)
            self._next = None
            self._waiting.discard(me)
            if me in self._doomed:
                raise Killed

    def leave(self) -> None:
        with self._condition:
            self._active -= 1
            self._condition.notify_all()

    def direct(self) -> None:
        with self._condition:
            while self._active:
                everyone_waits = self._condition.wait_for(
                    lambda: self._next is None and len(self._waiting) == self._active, timeout=300
                )
                assert everyone_waits, "a process neither ended nor asked for its turn"
                if not self._active:
                    return
                chosen = self._random.choice(sorted(self._waiting))
                if self._kills and self._active > 1 and self._random.random() < 0.1:
                    self._kills -= 1
                    self._doomed.add(chosen)
                self._next = chosen
                self._condition.notify_all()


class Shelf:
    """A store in memory that promises what a database does: requests are atomic, a parameter is written once."""

    uri = "memory"

    def __init__(self, turns: Turns, seed: int) -> None:
        self._turns = turns
        self._ids = random.Random(seed)
        self.runs: dict[str, Run] = {}
        self.deleted: set[str] = set()

    def search(self, experiment_id: str, tag: str, value: str) -> list[Run]:
        self._turns.wait()
        return [run for run in self.runs.values() if run.tags.get(tag) == value and run.run_id not in self.deleted]

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        self._turns.wait()
        run = Run(uuid.UUID(int=self._ids.getrandbits(128)).hex, experiment_id, "RUNNING", "", dict(tags), {})
        self.runs[run.run_id] = run
        return run

    def write_once(self, run_id: str, param: str, value: str) -> None:
        self._turns.wait()
        run = self.runs[run_id]
        if run_id in self.deleted or run.params.get(param, value) != value:
            raise TrackingError("refused", code=INVALID)
        self.runs[run_id] = dataclasses.replace(run, params={param: value})

    def run(self, run_id: str) -> Run:
        self._turns.wait()
        return self.runs[run_id]

    def delete_run(self, run_id: str) -> None:
        self._turns.wait()
        if run_id in self.deleted:
            raise TrackingError("gone", code=NOT_FOUND)
        self.deleted.add(run_id)


@pytest.mark.parametrize("kills", [0, 2])
def test_processes_agree_on_one_run(kills: int) -> None:
    for seed in range(150):
        turns = Turns(seed, PROCESSES, kills)
        shelf = Shelf(turns, seed)
        found: list[str] = []

        def look(turns: Turns = turns, shelf: Shelf = shelf, found: list[str] = found) -> None:
            try:
                found.append(find_or_create_run(shelf, "1", "key", name="run", tags=dict).run_id)  # type: ignore[arg-type]
            except Killed:
                pass
            finally:
                turns.leave()

        for _ in range(PROCESSES):
            threading.Thread(target=look, daemon=True).start()
        turns.direct()
        assert len(found) >= PROCESSES - kills, f"seed {seed}: a process did not finish"
        assert len(set(found)) == 1, f"seed {seed}: {found}"
        assert found[0] not in shelf.deleted, f"seed {seed}: the run was deleted"
        assert shelf.runs[found[0]].tags == {KEY: "key"}
