"""Whatever is listed or shown is JSON for programs as well, and fits a small terminal."""

import json
import subprocess
import sys

import pytest

from nemo_airflow.cli import main

COMMANDS = (
    "list packagers",
    "plan {config}",
    "render {config}",
    "history {config}",
    "diff {config} {config}",
    "package {config}",
    "jobs --here",
    "status last",
    "why last",
    "sync --dry-run",
    "store --store {store} ls",
    "reap local --dry-run",
)


def test_what_is_listed_or_shown_is_json_too_and_fits_a_small_terminal(
    project, airflow_database, tmp_path, capsys, monkeypatch
):
    assert main(["run", f"{project}:small", "--no-track"]) == 0
    for command in COMMANDS:
        capsys.readouterr()
        arguments = command.format(config=f"{project}:small", store=tmp_path / "store").split()
        assert main([*arguments, "--output", "json"]) == 0, command
        json.loads(capsys.readouterr().out)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["jobs", "--here"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == ["  name: small", "  state: succeeded", "  executor: local"]
    assert all(len(line) <= 40 for line in lines)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_leaves_early_is_no_error_with_and_without_a_buffer(unbuffered):
    process = subprocess.Popen(
        [sys.executable, "-m", "nemo_airflow.cli", "list", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": unbuffered},
    )
    process.stdout.close()
    assert process.wait(300) == 141
    assert process.stderr.read() == b""


def test_outputs_that_are_fetched_are_a_bar_on_a_terminal_only(project, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for on_terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda on_terminal=on_terminal: on_terminal)
        assert main(["run", f"{project}:small", "weights=300000"]) == 0
        out, err = capsys.readouterr()
        assert out.splitlines() == ["step 0", "step 1", "step 2"]
        assert ("outputs kept" in err) is on_terminal
        assert ("/2.1 MB" in err) is on_terminal


@pytest.mark.parametrize(
    "command",
    [["jobs"], ["metrics", "last"], ["package"], ["shell", "last"], ["sync", "--dry-run"], ["run", "{config}"]],
    ids=lambda command: command[0],
)
def test_a_home_that_cannot_be_used_is_said_in_one_line(project, tmp_path, monkeypatch, capsys, command):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code = main([each.format(config=f"{project}:small") for each in command])
    err = capsys.readouterr().err
    assert code == (0 if command[0] == "jobs" else 2)
    assert all(line.startswith(("nemo-airflow: ", "no jobs: ")) for line in err.splitlines())
    assert len(err.splitlines()) == (2 if command[0] == "jobs" else 1)
