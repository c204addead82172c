"""A shell completes commands, options, jobs, executors, configs, and their paths and values; without Airflow."""

import os
import subprocess
import sys

import pytest

ASK = """
import sys
from nemo_airflow.cli import main
try:
    main()
finally:
    assert not {"airflow", "mlflow", "asyncssh"} & set(sys.modules), "imported at TAB"
"""

CONFIGS = """
from typing import Literal

from nemo_airflow import Config


def train(lr: float = 0.1, fast: bool = False, kind: Literal["big", "small"] = "small"):
    raise AssertionError("a completion runs nothing")


def make(steps=3):
    return Config(train)


def needs(steps):
    return Config(train)


small = Config(train)
LIMIT = max(1, 2)
"""


def complete(line):
    """What argcomplete's function for a shell gets for a line."""
    asked = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": "fish", "_ARGCOMPLETE_IFS": "\n", "COMP_TYPE": "9",
        "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": "answer",
    }  # fmt: skip
    code = ASK.replace("main()", "sys.argv = ['nemo-airflow']; import os; os._exit = sys.exit; main()", 1)
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True)
    assert "imported at TAB" not in done.stderr, done.stderr
    with open("answer") as answer:
        return {word.split("\t")[0].strip() for word in answer.read().splitlines()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "training.py").write_text(CONFIGS)
    (tmp_path / "cluster.yaml").write_text("kind: slurm\n")
    launched = tmp_path / "home" / "launched"
    launched.mkdir(parents=True)
    (launched / "small-0123-1.json").write_text('{"name": "small"}')
    (launched / "broken-1.json").write_text("{")
    (tmp_path / "home" / "experiments").mkdir()
    (tmp_path / "home" / "experiments" / "sweep_17.json").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nemo-airflow met", {"metrics"}),
        ("nemo-airflow experiment status sw", {"sweep", "sweep_17"}),
        ("nemo-airflow logs --fo", {"--follow"}),
        ("nemo-airflow status ", {"last", "small", "small-0123-1", "broken-1"}),
        ("nemo-airflow run training:", {"training:make", "training:small", "training:train"}),
        ("nemo-airflow run training:small --executor c", {"cluster.yaml"}),
        ("nemo-airflow run training:small --executor slu", {"slurm"}),
        ("nemo-airflow run training:small ", {"lr=", "fast=", "kind="}),
        ("nemo-airflow run training:small kind=", {"kind=big", "kind=small"}),
        ("nemo-airflow run training:small fast=", {"fast=True", "fast=False"}),
        ("nemo-airflow run training:small lr=", {"lr=0.1"}),
        ("nemo-airflow run nowhere:none l", set()),
        ("nemo-airflow validate tr", {"training.py", "training:"}),
        ("nemo-airflow init x --template s", {"sweep"}),
    ],
)
def test_a_word_is_completed(folder, line, words):
    assert complete(line) >= words
    if words and not line.endswith(" "):
        assert complete(line) == words


def test_no_completion_prints_a_traceback_or_runs_a_config(folder):
    assert complete("nemo-airflow run training:needs ") == complete("nemo-airflow run training:nothing ")
