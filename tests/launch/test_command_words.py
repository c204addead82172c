"""The words of the command line: its help, wrong commands, and output that nobody reads to its end."""

import re

import pytest

from nemo_airflow.cli import _parser, main
from nemo_airflow.cli.help import GROUPS


def test_every_command_is_in_one_group_of_the_help(capsys):
    commands = _parser()._subparsers._group_actions[0].choices
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(commands)
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\w", shown, re.MULTILINE) for name in commands)


def test_the_help_of_each_command_fits_one_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for name in _parser()._subparsers._group_actions[0].choices:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert len(capsys.readouterr().out.splitlines()) <= 48, name


def test_a_wrong_command_is_answered_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["rnu"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "nemo-airflow: 'rnu' is not a command; did you mean 'run'?; 'nemo-airflow --help' lists them\n"
    )
