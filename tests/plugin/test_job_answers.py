"""What is told of a job where its follower, MLflow or nobody has told of its phases, and whoever wrote the XCom."""

from types import SimpleNamespace

import pytest

from nemo_airflow.config import Config
from nemo_airflow.config.plan import to_plan
from nemo_airflow.operators.preparation import origins_of
from nemo_airflow.plugin.api.answers import JobPlace, TrackerState
from nemo_airflow.plugin.api.config import _Rows
from nemo_airflow.plugin.api.found import FoundJob
from nemo_airflow.plugin.api.metrics import _size
from nemo_airflow.plugin.api.phases import live_state, phases_of, state_of


def found(live=None, run=None, record=None, task=None):
    return FoundJob(JobPlace(), record or {}, live or {}, task, run, None, TrackerState())


def test_the_follower_is_asked_first():
    live = {
        "state": "away",
        "phases": [
            {"state": "pending", "why": "Slurm: PENDING  (Priority)", "at": 10.0, "until": 20.0},
            {"state": "running", "why": "", "at": 20.0},
            {"state": "away", "why": "no route", "at": 30.0},
        ],
    }
    phases, by = phases_of(found(live), "running")
    assert by == "follower"
    assert [(phase.state, phase.at, phase.until) for phase in phases] == [
        ("pending", 10.0, 20.0), ("running", 20.0, None), ("away", 30.0, None)
    ]  # fmt: skip
    assert phases[0].why == "Slurm: PENDING (Priority)"
    assert live_state(live) == "running"


@pytest.mark.parametrize(
    ("why", "state"),
    [("failed (out_of_memory): killed", "failed"), ("succeeded", "succeeded"), ("<b>", ""), ("", "")],
)
def test_the_end_is_told_with_its_state(why, state):
    assert live_state({"phases": [{"state": "ended", "why": why, "at": 1}]}) == state


RUNNING = {"phases": [{"state": "running", "at": 1}]}
ENDED = {"phases": [{"state": "ended", "why": "failed (timeout): x", "at": 1}]}


@pytest.mark.parametrize(
    ("tags", "live", "task", "state"),
    [
        ({"nemo_airflow.state": "cancelled"}, RUNNING, "running", "cancelled"),
        ({}, ENDED, "deferred", "failed"),
        ({}, RUNNING, "deferred", "running"),
        ({}, RUNNING, "failed", "failed"),  # a user has ended the task
        ({}, {"phases": [{"state": "pending", "at": 1}]}, "deferred", "pending"),
        ({}, {}, "success", "succeeded"),
        ({}, {}, "", "pending"),
        ({"nemo_airflow.host": "n1"}, {}, "", "running"),
        (None, {}, "queued", "pending"),
        (None, {}, "deferred", "running"),
        (None, {}, "skipped", "cancelled"),
        (None, {}, "", "unknown"),
    ],
)
def test_a_state_is_told_by_whoever_knows_best(tags, live, task, state):
    told = (tags or {}).get("nemo_airflow.state", "running")
    run = None if tags is None else SimpleNamespace(tags=tags, state=told)
    assert state_of(run, live, task) == state


@pytest.mark.parametrize(
    "phases", [None, "text", 7, [None, 3, {}, {"state": 1, "at": 2}, {"state": "x", "at": float("nan")}], {"a": 1}]
)
def test_what_is_no_phase_is_left_out(phases):
    assert phases_of(found({"phases": phases}), "unknown") == ([], "airflow")


def test_a_run_tells_where_no_follower_does():
    tag = '{"phases":[{"state":"running","why":"","at":5.5,"until":6.5},{"state":"ended","why":"succeeded","at":6.5}]}'
    run = SimpleNamespace(tags={"nemo_airflow.phases": tag}, began=5.0)
    phases, by = phases_of(found(run=run), "succeeded")
    assert by == "tracker"
    assert [phase.state for phase in phases] == ["running", "ended"]


def test_a_run_without_phases_has_its_two_times():
    run = SimpleNamespace(tags={"nemo_airflow.state": "failed"}, began=5.0, ended_at=9.0, state="failed", reason="oh")
    phases, by = phases_of(found(run=run), "failed")
    assert by == "airflow"
    assert [(phase.state, phase.at, phase.why) for phase in phases] == [
        ("running", 5.0, ""), ("ended", 9.0, "failed: oh")
    ]  # fmt: skip


class Net:
    def __init__(self, width: int = 8, depth: int = 3):
        pass


def train(net, rate: float = 0.1, parts: object = None):
    pass


def test_defaults_are_told_from_what_was_set_and_by_whom():
    config = Config(train, net=Config(Net, width=16), parts={"a": [1]})
    config.net.width = 32
    rows = _Rows(origins_of(config))
    rows.add(to_plan(config, check=False))
    by_path = dict(zip(rows.paths, rows.set_by, strict=True))
    assert by_path["rate"] == by_path["net.depth"] == -1
    assert by_path["parts"] == by_path["parts.a.0"] >= 0
    assert rows.who[by_path["net.width"]].startswith("tests/plugin/test_job_answers.py:")
    assert by_path["net.width"] != by_path["net"]
    assert dict(zip(rows.paths, rows.values, strict=True))["net.width"] == "32"
    assert rows.depths[0] == 0
    assert rows.values[0] == "train("


def test_a_run_of_which_nobody_recorded_who_set_what_says_so():
    rows = _Rows(None)
    rows.add(to_plan(Config(train, net=1), check=False))
    assert set(rows.set_by) == {-2}


@pytest.mark.parametrize(
    ("text", "binary", "size"),
    [("4G", False, 4e9), ("4Gi", False, 4 * 2**30), ("4G", True, 4 * 2**30), ("500MB", False, 5e8), ("x", False, None),
     (None, False, None), (17, False, None), (2**33, False, 2.0**33)],
)  # fmt: skip
def test_memory_is_read_as_the_back_end_writes_it(text, binary, size):
    assert _size(text, binary) == (pytest.approx(size) if size else None)
