"""Conditions on metrics: how they are written, and when they come true."""

import math

import pytest

from nemo_airflow.alerts import AlertWatch, parse_rules
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.stream import Record
from nemo_airflow.triggers.alerting import Alerting, AlertSettings


def steps_told(condition, *values, told=()):
    """Returns at which points a condition is told; one point a second."""
    watch = AlertWatch(parse_rules(condition), told)
    records = [
        Record("metrics", {"points": [["loss", value, step, float(step)]]}, 0, 0) for step, value in enumerate(values)
    ]
    return [alert.step for record in records for alert in watch.take(record)]


@pytest.mark.parametrize(
    ("condition", "values", "steps"),
    [
        ("loss > 10", [1, 11, 12], [1]),
        ("loss>=10 for 3 steps", [11, 11, 1, 11, 11, 11, 11], [5]),
        ("loss is nan", [1, math.nan, math.nan], [1]),
        ("loss > 10", [math.nan], []),
        ("loss < 1e-3 for 2 seconds", [0, 0, 0, 0], [2]),
        ("loss == inf", [1, math.inf], [1]),
        ("lose > 10", [11], []),
    ],
)
def test_condition_comes_true_once_when_it_has_held_for_long_enough(condition, values, steps):
    assert steps_told(condition, *values) == steps


def test_what_was_told_is_not_told_again():
    assert steps_told(["loss > 1", "loss  >  10"], 20, told=["loss > 1"]) == [0]


def test_samples_of_the_machine_are_metrics_too():
    watch = AlertWatch(parse_rules("system/node_1/gpu_util < 5"))
    [alert] = watch.take(Record("sample", {"node": 1, "values": {"gpu_util": 3.0}}, 5.0, 0))
    assert alert.text == "system/node_1/gpu_util < 5: system/node_1/gpu_util is 3 at step 0"


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("loss", "is not a condition"),
        ("loss > ten", "'ten' is not a number"),
        ("loss > nan", "write 'is nan'"),
        ("loss => 10", "is not a condition"),
        ("loss > 10 for five steps", "is not a condition"),
        ("loss > 10 for 0 steps", "give at least 1"),
        ("loss > 10 for 5 fortnights", "is not a condition"),
        ("loss > 10 and acc < 1", "is not a condition"),
        (10, "alert_if is int"),
        ([None], "alert_if=None is not a condition"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(condition, says):
    with pytest.raises(ConfigError, match=says) as caught:
        parse_rules(condition)
    assert "\n" not in str(caught.value)


def test_note_of_what_was_told_that_is_damaged_or_cannot_be_written_ends_no_following(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path))
    point = Record("metrics", {"points": [["loss", 12.0, 1, 0.0]]}, 0.0, 0)
    warnings = []
    (tmp_path / "alerts").mkdir()
    (tmp_path / "alerts" / "key.json").write_text('["loss >')  # as a full disk leaves it
    assert len(Alerting(AlertSettings(["loss > 10"]), "key", warnings.append).take(point)) == 1
    assert Alerting(AlertSettings(["loss > 10"]), "key", warnings.append).take(point) == []
    (tmp_path / "alerts" / "other.new").mkdir()
    assert len(Alerting(AlertSettings(["loss > 10"]), "other", warnings.append).take(point)) == 1
    [warning] = warnings
    assert warning.startswith("that an alert was told cannot be noted, so another triggerer may tell it again: ")
