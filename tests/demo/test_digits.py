"""The example's own functions: what data an interval has, what training reaches, what has drifted, who is promoted."""

import datetime

import numpy as np
import pytest
from digits import drift
from digits.comparison import compare
from digits.data import Data, has_arrived, held_out_set, training_set
from digits.evaluate import evaluate
from digits.features import Features
from digits.gate import Thresholds, decide, refusal_of_past, to_markdown
from digits.inspection import find_problems, inspect
from digits.model import Model, Optimizer
from digits.scoring import score
from digits.train import train

SAMPLES = 1797


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    """Outside a job, what is kept goes below the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arrived(until, weeks):
    return {index for index in range(SAMPLES) if has_arrived(index, datetime.date.fromisoformat(until), weeks)}


@pytest.mark.parametrize("until", ["1970-01-01", "2026-01-04", "2026-11-23", "2100-02-28"])
def test_a_window_at_any_date_has_its_share_of_the_samples(until):
    for weeks in (1, 13, 26):
        assert weeks / 52 * SAMPLES * 0.5 < len(arrived(until, weeks)) < weeks / 52 * SAMPLES * 1.5
    assert len(arrived(until, 52)) == SAMPLES


def test_the_window_rolls_with_the_interval():
    this, next_week = arrived("2026-11-22", 26), arrived("2026-11-29", 26)
    assert this != next_week
    assert len(this & next_week) > 0.9 * len(this)
    assert arrived("2026-11-22", 4) < this


def test_held_out_digits_are_never_trained_on():
    images, labels = held_out_set("2026-06-28")
    assert 0.2 < len(labels) / SAMPLES < 0.3
    assert set(labels) == set(range(10))
    for until in ("2026-01-04", "2026-06-28"):
        trained_on, _ = training_set(Data(until, weeks=52))
        assert len(trained_on) + len(images) == SAMPLES


def test_the_scanner_wears_out_in_the_course_of_a_year():
    january, june = (held_out_set(until)[0] for until in ("2026-01-01", "2026-06-28"))
    assert june.mean() < 0.85 * january.mean()
    assert january.max() == 16
    assert np.array_equal(held_out_set("2027-01-01")[0], january), "there is a new one each January"


def test_training_twice_gives_the_same_model_and_it_is_good(in_a_folder):
    arguments = (Data("2026-11-22"), Features(), Model(hidden=[32]), Optimizer(epochs=8))
    first = train(*arguments)
    metrics = evaluate(first["model"], "2026-11-22")
    assert metrics["accuracy"] > 0.85
    assert metrics["samples"] == len(held_out_set("2026-11-22")[1])
    again = train(*arguments)
    assert again["loss"] == first["loss"]
    assert again["model"].digest == first["model"].digest


@pytest.mark.parametrize("features", [Features(scaling="standard", components=20), Features(scaling="none")])
def test_features_are_part_of_the_kept_model(in_a_folder, features):
    trained = train(Data("2026-11-22"), features, Model(hidden=[32]), Optimizer(epochs=8))
    assert evaluate(trained["model"], "2026-11-22")["accuracy"] > 0.8


@pytest.fixture(scope="module")
def of_june(tmp_path_factory):
    """What training on the digits until June returns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("june"))
        return train(Data("2026-06-29"), Features(), Model(hidden=[64]), Optimizer())


@pytest.mark.parametrize(("until", "drifted"), [("2026-06-29", []), ("2026-10-26", ["ink", "centre_x"])])
def test_drift_since_the_champion_was_trained_is_found_and_shown(in_a_folder, of_june, until, drifted):
    seen = inspect(Data(until, weeks=8), drift.Limits(), "1", of_june["model"], of_june["baseline"])
    assert seen["champion"] == "1"
    assert seen["drifted"] == drifted
    assert set(seen["drift"]) == {"ink", "centre_x", "centre_y", "target", "prediction"}
    [page] = in_a_folder.rglob("data.html")
    assert page.read_text().count("<svg") == 5
    assert page.read_text().count("class=drifted") == len(drifted)


def test_equal_distributions_have_no_distance_and_other_ones_have():
    random = np.random.default_rng(0)
    before = {"numeric": {"x": random.normal(0, 1, 800)}, "categorical": {"y": random.integers(0, 3, 800)}}
    [same_x, same_y] = drift.compare(before, before, drift.Limits())
    assert (same_x.psi, same_x.distance, same_x.p_value) == (0, 0, 1)
    assert (same_y.psi, same_y.distance, same_y.drifted) == (0, 0, False)
    now = {"numeric": {"x": random.normal(1, 1, 200)}, "categorical": {"y": [3, *random.integers(0, 2, 199)]}}
    [x, y] = drift.compare(before, now, drift.Limits())
    assert x.distance == pytest.approx(1, abs=0.2)
    assert x.psi > 0.5
    assert y.distance == pytest.approx(1 / 3, abs=0.1)
    assert x.drifted
    assert y.drifted


def test_what_is_wrong_with_data_is_said_reason_by_reason(in_a_folder):
    images, labels = (array[:40].copy() for array in training_set(Data("2026-01-12")))
    assert find_problems(*training_set(Data("2026-01-12"))) == []
    images[0, 0], labels[1] = np.nan, 11
    labels[labels == 4] = 5
    assert find_problems(images, labels) == [
        "no digit is labelled 4",
        "labels 11 are not digits",
        "1 images have values that are not between 0 and 16",
    ]
    assert find_problems(images[:0], labels[:0])[0] == "0 digits are fewer than 20"


def test_a_model_is_compared_with_the_champion_on_todays_digits_slice_by_slice(in_a_folder, of_june):
    later = train(Data("2026-10-26"), Features(), Model(hidden=[64]), Optimizer())
    compared = compare("2026-10-26", later["model"], of_june["model"])
    assert compared["low"] < compared["gain"] < compared["high"]
    assert compared["gain"] == pytest.approx(compared["challenger"]["accuracy"] - compared["champion"]["accuracy"])
    assert compared["low"] > 0, "the scanner has worn, and the champion does not know it"
    assert sum(each["samples"] for name, each in compared["slices"].items() if name != "faint") == compared["samples"]
    assert compare("2026-10-26", later["model"], of_june["model"]) == compared
    decision = decide(compared, Thresholds())
    assert decision.verdict == "promote"
    body = to_markdown(compared, decision, {"cost": "3 s, no GPU"})
    assert "| accuracy, digit 9 (" in body
    assert "- cost: 3 s, no GPU" in body
    with_itself = compare("2026-06-29", of_june["model"], of_june["model"])
    assert (with_itself["gain"], with_itself["low"], with_itself["high"]) == (0, 0, 0)


def test_a_batch_is_scored_by_the_champion_and_in_its_shadow_by_the_challenger(in_a_folder, of_june):
    given = (Data("2026-06-29", weeks=2), of_june["model"], of_june["baseline"], drift.Limits())
    scored = score(*given, challenger=of_june["model"])
    header, *rows = (in_a_folder / "outputs" / "predictions.csv").read_text().splitlines()
    assert header == "digit,prediction,shadow"
    assert len(rows) == scored["samples"] > 20
    assert scored["agreement"] == 1
    assert score(*given)["agreement"] is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Data("2026-11-22", weeks=0).validate(), "weeks=0"),
        (lambda: Data("22.11.2026").validate(), "22.11.2026"),
        (lambda: Optimizer(learning_rate=-1.0).validate(), "learning_rate=-1.0"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong()


def compared(challenger, champion, low=0.0, high=0.0, worst=0.0):
    """What a comparison returns, with one slice in which the challenger is worse by so much."""
    slices = {"digit 8": {"samples": 40, "challenger": 0.9 - worst, "champion": 0.9}}
    result = {"challenger": {"accuracy": challenger}, "champion": None, "gain": None, "slices": slices}
    if champion is not None:
        gain = challenger - champion
        result |= {"champion": {"accuracy": champion}, "gain": gain, "low": gain + low, "high": gain + high}
    return result


@pytest.mark.parametrize(
    ("comparison", "verdict", "reason"),
    [
        (compared(0.90, None), "promote", "there was no champion; held-out accuracy 0.9000"),
        (compared(0.50, None), "refuse", "held-out accuracy 0.5000 is less than 0.8000"),
        (compared(0.93, 0.90, -0.02, 0.02), "promote", "better: .* (+0.0300, 95 % between +0.0100 and +0.0500)"),
        (compared(0.91, 0.90, -0.02, 0.02), "ask", "perhaps better: .*, which may be chance"),
        (compared(0.90, 0.90, -0.02, 0.02), "refuse", "not better: "),
        (compared(0.89, 0.90, -0.02, 0.02), "refuse", "not better: "),
        (compared(0.93, 0.90, -0.02, 0.02, worst=0.2), "refuse", "worse on 'digit 8' by 0.2000, at most 0.1500"),
    ],
)
def test_only_what_is_better_for_sure_is_promoted_without_a_person(comparison, verdict, reason):
    decision = decide(comparison, Thresholds())
    assert decision.verdict == verdict
    assert all(part in decision.reason for part in reason.split(".*")), decision.reason


def test_a_model_of_the_past_does_not_become_todays_champion():
    assert refusal_of_past("2026-03-02", "2026-06-29", False).verdict == "refuse"
    assert refusal_of_past("2026-06-29", "2026-06-29", False) is None
    assert refusal_of_past("2026-06-29", "", False) is None
    assert refusal_of_past("2026-06-29", "", True).verdict == "refuse"
