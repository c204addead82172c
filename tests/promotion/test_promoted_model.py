"""Promotion and rollback by an alias, in a registry of MLflow: each once, with its reason, and never by accident."""

import time

import pytest
from mlflow import MlflowClient

from nemo_airflow.cli import main
from nemo_airflow.exceptions import PromotionRefused, RegistryError
from nemo_airflow.promotion import Change, PromotedModel
from nemo_airflow.promotion.changes import format_changes, parse_changes, versions_in_turn


def promotion(version, before, **fields):
    return Change("promotion", version, before, 0.0, **fields)


def rollback(version, before):
    return Change("rollback", version, before, 0.0)


@pytest.mark.parametrize(
    ("changes", "current", "turn"),
    [
        ([], "", []),
        ([], "3", ["3"]),
        ([promotion("1", ""), promotion("2", "1")], "2", ["1", "2"]),
        ([promotion("1", ""), promotion("2", "1"), rollback("1", "2")], "1", ["1"]),
        ([promotion("1", ""), promotion("2", "1"), rollback("1", "2"), promotion("3", "1")], "3", ["1", "3"]),
        # Set by hand between, and at the end.
        ([promotion("1", ""), promotion("4", "2")], "5", ["1", "2", "4", "5"]),
        # A process has died before it moved the alias, and after.
        ([promotion("1", ""), promotion("2", "1", done=False)], "1", ["1"]),
        ([promotion("1", ""), promotion("2", "1", done=False)], "2", ["1", "2"]),
        ([promotion("1", ""), promotion("2", "1"), promotion("1", "2")], "1", ["1", "2", "1"]),
        ([promotion("2", "1"), rollback("7", "2")], "7", ["7"]),
    ],
)
def test_rollbacks_lead_through_the_versions_that_were_in_service(changes, current, turn):
    assert versions_in_turn(changes, current) == turn
    assert parse_changes(format_changes(changes)) == changes


@pytest.fixture
def client(mlflow_database, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
    return MlflowClient(mlflow_database)


@pytest.fixture
def runs(client, tmp_path):
    experiment = client.create_experiment("digits", artifact_location=f"file://{tmp_path}/artifacts")
    runs = [client.create_run(experiment).info.run_id for _ in range(3)]
    for run_id in runs:
        client.log_text(run_id, "flavors: {}", "models/net/MLmodel")
    return runs


@pytest.fixture
def model(client, runs):
    """A model of three versions, of which none is in service."""
    model = PromotedModel("digits", client=client)
    assert model.current() is None
    assert [model.register(run_id, "net", {"accuracy": "0.9"}) for run_id in runs] == ["1", "2", "3"]
    return model


def test_a_bad_version_is_rolled_back_and_stays_away(model, client, runs):
    assert model.register(runs[0], "net", {"accuracy": "0.95"}) == "1"
    assert model.get("1").tags["accuracy"] == "0.95"
    model.promote("1", why="the first", by="ann", operation="dag/run/1")
    model.promote("2", why="better", operation="dag/run/2", instead_of="1")
    client.set_registered_model_alias("digits", "champion", "3")
    assert model.promote("2", why="asked again", operation="dag/run/2").why == "better"
    assert model.current().version == "3", "an operation changes the alias once"

    undone = model.rollback(why="confuses 4 and 9", of="3", operation="dag/run/3")
    assert (undone.version, undone.before) == ("2", "3")
    assert model.rollback(why="asked again", operation="dag/run/3") == undone
    assert model.current().version == "2"
    assert model.rollback(why="also bad").version == "1"
    with pytest.raises(RegistryError, match=r"no version to go back to: version 1 .* --to VERSION"):
        model.rollback(why="also bad")
    with pytest.raises(PromotionRefused, match=r"version 3 .* was rolled back \(confuses 4 and 9\); .* 3 --again"):
        model.promote("3", why="better", operation="dag/run/4")
    assert model.promote("3", why="it was the scanner", again=True).before == "1"
    assert [change.version for change in model.changes()] == ["1", "2", "2", "1", "3"]
    assert model.promote("3", why="it is there already").why == "it was the scanner"


@pytest.mark.parametrize(
    ("conditions", "why"),
    [
        ({"instead_of": ""}, "it was compared with no version, and meanwhile champion is version 1: compare it again"),
        ({"most_a_day": 1}, r"at most 1 may be within 24 hours, and version 1 was 0\.0 h ago"),
    ],
)
def test_what_is_in_the_way_of_a_promotion_is_said(model, conditions, why):
    model.promote("1", why="the first")
    with pytest.raises(PromotionRefused, match=f"^version 2 of digits is not promoted: {why}"):
        model.promote("2", why="better", **conditions)
    assert model.current().version == "1"


def test_a_promotion_of_yesterday_does_not_count(model, client):
    old = Change("promotion", "1", "", time.time() - 90_000, why="the first")
    client.set_registered_model_tag("digits", "nemo_airflow.alias.champion", format_changes([old]))
    client.set_registered_model_alias("digits", "champion", "1")
    assert model.promote("2", why="better", most_a_day=1).before == "1"


def test_a_run_without_that_model_is_not_registered(model, runs):
    with pytest.raises(RegistryError, match=r"has logged no model 'nets': let its job call nemo_airflow\.log_model"):
        model.register(runs[0], "nets", {})


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_task_that_died_halfway_ends_what_it_began(model, client, is_moved):
    model.promote("1", why="the first")
    begun = Change("promotion", "2", "1", time.time(), why="better", operation="dag/run/promote", done=False)
    tag = format_changes([*model.changes(), begun])
    client.set_registered_model_tag("digits", "nemo_airflow.alias.champion", tag)
    if is_moved:
        client.set_registered_model_alias("digits", "champion", "2")
    assert model.promote("2", why="better", operation="dag/run/promote").done
    assert model.current().version == "2"
    assert [(change.version, change.done) for change in model.changes()] == [("1", True), ("2", True)]


def test_the_commands_promote_list_and_roll_back(model, capsys):
    def run(*arguments):
        code = main(arguments)
        return code, *capsys.readouterr()

    assert run("promote", "digits", "1")[:2] == (0, "digits@champion is version 1\n")
    assert run("promote", "digits", "2", "--why", "better")[1] == "digits@champion is version 2, which was version 1\n"
    assert run("rollback", "digits", "--why", "bad")[1] == "digits@champion is version 1, which was version 2\n"
    first, _, newest, *others = run("promotions", "digits")[1].splitlines()
    assert first == "digits@champion: version 1"
    assert newest.split()[2:5] == ["rollback", "1", "2"]
    assert newest.split()[-1] == "bad"
    assert len(others) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rollback", "digit"), "MLflow has no registered model 'digit'; did you mean 'digits'?; it has digits"),
        (("rollback", "digits"), "the model digits has no alias 'champion': there is nothing to roll back"),
        (("promote", "digits", "9"), "the model digits has no version '9': it has 1, 2, 3"),
    ],
)
def test_what_is_not_there_is_one_clear_line(model, capsys, arguments, message):
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"nemo-airflow: {message}\n"
