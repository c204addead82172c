"""What tasks need is imported once in a process that forks them, and in no other process of Airflow."""

import json
import os
import subprocess
import sys

import pytest

from nemo_airflow.plugin.preloading import forks_tasks

SCRIPT = """
import json, sys, threading
sys.argv = json.loads(sys.argv[1])
from airflow.sdk.listener import get_listener_manager
get_listener_manager()  # as at the start of each component: it loads the plugins
names = ("nemo_airflow.plugin", "nemo_airflow.operators.run", "fiddle", "mlflow")
there = [name for name in names if name in sys.modules]
print(json.dumps([there, threading.active_count()]))
"""


def loaded(arguments, **env):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(arguments)], env={**os.environ, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


ALL = ["nemo_airflow.plugin", "nemo_airflow.operators.run", "fiddle", "mlflow"]


@pytest.mark.parametrize(
    ("arguments", "env", "there"),
    [
        (["/opt/bin/airflow", "scheduler"], {}, ALL),
        (["/opt/airflow/__main__.py", "celery", "worker"], {"MLFLOW_TRACKING_URI": "http://mlflow"}, ALL[:3]),
        (["/opt/bin/airflow", "scheduler"], {"NEMO_AIRFLOW_PRELOAD": "0"}, ALL[:1]),
        (["/opt/bin/airflow", "api-server"], {}, ALL[:1]),
    ],
    ids=["scheduler", "tracking server", "switched off", "forks no tasks"],
)
def test_process_that_forks_tasks_has_what_they_need_and_no_thread(arguments, env, there):
    assert loaded(arguments, **env) == [there, 1]


@pytest.mark.parametrize("arguments", [[], [""], ["airflow"], ["airflow", "dags", "list"], ["pytest", "scheduler"]])
def test_other_programs_fork_no_tasks(arguments):
    assert not forks_tasks(arguments)
