"""The tutorial works as printed: its files, its commands with their output, its DAG and the test of that."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import airflow.settings  # noqa: F401 - its logging holds on to the output that is there when it is imported first
import pytest

from nemo_airflow.cli import main
from nemo_airflow.executors import DockerExecutor, SlurmExecutor
from nemo_airflow.launch.records import Records

PAGE = (Path(__file__).parents[2] / "docs/tutorial.md").read_text()
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
STEPS = [
    step.splitlines()
    for text in re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
]
MODULES = ("trainer", "train_line", "test_train_line", "again")


@pytest.fixture
def folder(tmp_path, monkeypatch, mlflow_database):
    (tmp_path / "line").mkdir()
    (tmp_path / "line/trainer.py").write_text(FILES["trainer.py"])
    monkeypatch.chdir(tmp_path / "line")
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "t")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "t@localhost")
    monkeypatch.syspath_prepend(tmp_path / "line")
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path / "line"
    for name in MODULES:
        sys.modules.pop(name, None)


def run_step(command, capfd):
    """Runs a command line, those of this project in this process; returns its exit code and its whole output."""
    program, _, others = command.partition(" ")
    if program == "nemo-airflow":
        arguments, _, path = others.partition(" >")
        path, _, rest = path.partition(" && ")
        capfd.readouterr()
        code = main(shlex.split(arguments))
        output = capfd.readouterr()
        if path:
            Path(path).write_text(output.out)
        return run_step(rest, capfd) if rest else (code, output.out + output.err)
    done = subprocess.run(["bash", "-euc", command], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_every_command_prints_what_the_tutorial_shows(folder, capfd):
    ids = {}
    for command, *shown in STEPS:
        for name, run_id in ids.items():
            command = command.replace(name, run_id)
        code, printed = run_step(command, capfd)
        patterns = [re.escape(line.strip()).replace(r"\.\.\.", ".*") for line in shown]
        lines = [line.strip() for line in printed.splitlines()]
        missing = [line for line in patterns if not any(re.fullmatch(line, each) for each in lines)]
        assert missing == [], f"{command}\n{printed}"
        refused = any(line.startswith("nemo-airflow: l") for line in shown)
        differs = command.startswith("nemo-airflow diff ")
        assert code == (2 if refused else 1 if differs else 0), f"{command}\n{printed}"
        for name in ("1f0c3a...", "77ab21...", "run:again")[len(ids) :]:
            if command.startswith("nemo-airflow run") and not refused:
                run_id = Records().find("last").tracked.ref.run_id
                ids[name] = f"run:{run_id}" if name == "run:again" else run_id
                break


def test_the_dag_and_its_test_work(folder, run_task):
    for name in ("train_line.py", "test_train_line.py"):
        (folder / name).write_text(FILES[name])
    subprocess.run(["bash", "-euc", "git init -q && git add . && git commit -q -m all"], check=True)
    importlib.import_module("test_train_line").test_a_larger_rate_fits_better(run_task)


def test_the_executors_of_the_tutorial_can_be_built():
    names = {}
    exec(FILES["elsewhere"], names)
    assert isinstance(names["job_executor"], SlurmExecutor)
    assert names["DockerExecutor"] is DockerExecutor
