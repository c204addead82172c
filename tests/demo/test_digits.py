"""The example's own functions: what data an interval has, what training reaches, who is promoted."""

import datetime

import pytest
from digits.data import Data, has_arrived, held_out_set, training_set
from digits.evaluate import evaluate
from digits.features import Features
from digits.model import Model, Optimizer
from digits.promotion import decide
from digits.registry import Registry
from digits.train import train
from mlflow import MlflowClient

SAMPLES = 1797


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    """Outside a job, what is kept goes below the working directory."""
    monkeypatch.chdir(tmp_path)


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
    images, labels = held_out_set()
    assert 0.2 < len(labels) / SAMPLES < 0.3
    assert set(labels) == set(range(10))
    for until in ("2026-01-04", "2026-06-28"):
        trained_on, _ = training_set(Data(until, weeks=52))
        assert len(trained_on) + len(images) == SAMPLES


def test_training_twice_gives_the_same_model_and_it_is_good(in_a_folder):
    arguments = (Data("2026-11-22"), Features(), Model(hidden=[32]), Optimizer(epochs=8))
    first = train(*arguments)
    metrics = evaluate(first["model"])
    assert metrics["accuracy"] > 0.9
    assert metrics["samples"] == len(held_out_set()[1])
    assert train(*arguments)["loss"] == first["loss"]


@pytest.mark.parametrize("features", [Features(scaling="standard", components=20), Features(scaling="none")])
def test_features_are_part_of_the_kept_model(in_a_folder, features):
    trained = train(Data("2026-11-22"), features, Model(hidden=[32]), Optimizer(epochs=8))
    assert evaluate(trained["model"])["accuracy"] > 0.85


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


@pytest.mark.parametrize(
    ("challenger", "champion", "margin", "promote"),
    [
        (0.5, None, 0.0, True),
        (0.91, 0.90, 0.0, True),
        (0.90, 0.90, 0.0, False),
        (0.89, 0.90, 0.0, False),
        (0.91, 0.90, 0.02, False),
        (0.93, 0.90, 0.02, True),
    ],
)
def test_only_a_challenger_that_is_better_by_the_margin_is_promoted(challenger, champion, margin, promote):
    decision = decide(challenger, champion, margin)
    assert decision.promote is promote
    assert f"{challenger:.4f}" in decision.reason
    assert champion is None or f"{champion:.4f}" in decision.reason


def test_the_registry_keeps_every_version_with_its_reason_and_moves_only_the_alias(tmp_path):
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("digits", artifact_location=f"file://{tmp_path}/artifacts")
    registry = Registry(client, "digits")
    assert registry.champion() is None
    for accuracy, champion in ((0.90, "1"), (0.89, "1"), (0.95, "3")):
        run_id = client.create_run(experiment).info.run_id
        before = registry.champion()
        decision = decide(accuracy, before.accuracy if before else None)
        version = registry.add(run_id, "model.joblib", {"accuracy": accuracy}, decision)
        if decision.promote:
            registry.promote(version)
        assert registry.champion().version == champion
        kept = client.get_model_version("digits", version)
        assert kept.run_id == run_id
        assert kept.description == kept.tags["reason"] == decision.reason
        assert kept.tags["promoted"] == str(decision.promote).lower()
