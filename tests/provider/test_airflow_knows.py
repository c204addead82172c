"""What Airflow itself tells of this provider: each of its commands is asked."""

import importlib
import json
from pathlib import Path

import jsonschema
import pytest
from airflow.cli import cli_parser
from airflow.providers_manager import ProvidersManager

from nemo_airflow.get_provider_info import get_provider_info
from nemo_airflow.options import OPTIONS

PACKAGE = "nemo-airflow"


@pytest.fixture
def ask(capsys):
    """Runs ``airflow providers ...``, and returns the rows of it that are of this provider."""
    parser = cli_parser.get_parser()

    def run(command, *arguments):
        capsys.readouterr()
        options = parser.parse_args(["providers", command, *arguments, "-o", "json"])
        options.func(options)
        rows = json.loads(capsys.readouterr().out)
        return [row for row in rows if "nemo" in json.dumps(row)]

    return run


def test_the_metadata_is_what_airflows_schema_wants():
    path = importlib.resources.files("airflow") / "provider_info.schema.json"
    jsonschema.validate(get_provider_info(), json.loads(path.read_text()))


def test_every_page_and_picture_in_the_metadata_is_there():
    root = Path(__file__).parents[2]
    for integration in get_provider_info()["integrations"]:
        assert integration["external-doc-url"].startswith("https://")
        paths = [*integration.get("how-to-guide", ()), *filter(None, [integration.get("logo")])]
        assert all((root / path.lstrip("/")).is_file() for path in paths)


def test_airflow_lists_the_provider_with_all_of_its_metadata(ask):
    [row] = ask("list")
    assert row["package_name"] == PACKAGE
    assert row["description"]
    [row] = ask("get", PACKAGE, "--full")
    assert all(each in str(row) for each in get_provider_info())


def test_every_class_that_airflow_lists_can_be_imported(ask):
    commands = {"hooks": "class", "links": "extra_link_class_name", "notifications": "notification_class_name"}
    for command, column in commands.items():
        rows = ask(command)
        assert rows, command
        for row in rows:
            module, _, name = row[column].rpartition(".")
            assert getattr(importlib.import_module(module), name), row


def test_airflow_lists_each_type_of_connection_with_its_form(ask):
    types = {"mlflow", "nemo_slurm", "nemo_ray", "nemo_skypilot"}
    assert {row["connection_type"] for row in ask("hooks") if row["package_name"] == PACKAGE} == types
    assert {row["field_behaviours"] for row in ask("behaviours")} >= types - {"mlflow"}
    fields = {row["connection_parameter_name"] for row in ask("widgets")}
    assert {"extra__nemo_slurm__key_file", "extra__nemo_slurm__private_key", "extra__nemo_ray__verify"} <= fields
    secret = {name for name, each in ProvidersManager().connection_form_widgets.items() if each.is_sensitive}
    assert {"extra__nemo_slurm__private_key", "extra__nemo_slurm__private_key_passphrase"} <= secret


def test_airflow_lists_the_triggers_and_that_there_are_settings(ask):
    assert any("nemo_airflow.triggers.run" in str(row) for row in ask("triggers"))
    assert ask("configs")
    options = ProvidersManager().provider_configs
    [section] = [section for name, section in options if name == PACKAGE]
    assert set(section["nemo_airflow"]["options"]) == set(OPTIONS)
