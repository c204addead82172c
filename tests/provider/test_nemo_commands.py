"""Every command of nemo-airflow is one of ``airflow nemo`` too, from the same definition."""

import re

import pytest
from airflow.cli import cli_parser

from nemo_airflow.cli import list_commands


def airflow(*arguments):
    options = cli_parser.get_parser().parse_args(["nemo", *arguments])
    with pytest.raises(SystemExit) as ended:
        options.func(options)
    return ended.value.code


def test_airflow_has_all_commands(capsys):
    with pytest.raises(SystemExit):
        cli_parser.get_parser().parse_args(["nemo", "--help"])
    shown = capsys.readouterr().out
    assert [name for name in list_commands() if not re.search(rf"^ +{name}( |$)", shown, re.MULTILINE)] == []


def test_a_command_of_airflow_takes_the_same_arguments_and_ends_with_the_same_code(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    (tmp_path / "settings.yaml").write_text("_target_: collections.Counter\na: 1\n")
    assert airflow("plan", "settings.yaml", "-o", "json", "--allow", "collections.", "a=7") == 0
    assert '"a":7' in capsys.readouterr().out
    assert airflow("plan", "no_such_module:config") == 2
    assert "no_such_module" in capsys.readouterr().err
    assert airflow("status", "nothing") == 2
    assert "no job 'nothing' was launched from this machine" in capsys.readouterr().err
    assert airflow("logs", "--help") == 0
    assert "usage: airflow nemo logs" in capsys.readouterr().out
    assert airflow("run", "--wrong") == 2
    assert "'airflow nemo run --help' says how to write it" in capsys.readouterr().err
