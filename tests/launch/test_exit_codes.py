"""The exit codes are those that the page says."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from test_launch import newest, until

from nemo_airflow.cli import main
from nemo_airflow.job import JobState
from nemo_airflow.launch.following import status_of

PAGE = Path(__file__).parents[2] / "docs" / "run.md"


def test_each_exit_code_of_the_page_is_true(project, tmp_path, capsys):
    config = f"{project}:small"
    (tmp_path / "executor.yaml").write_text("kind: local\nenv: {MARK: here}\n")
    assert main(["run", config, "gate=never", "--detach", "--no-track"]) == 0
    key = newest().key
    until(lambda: status_of(newest()).state is JobState.RUNNING, "start")
    seen = {
        0: [main(["run", config, "--no-track"])],
        1: [
            main(["run", f"{project}:bad", "--no-track"]),
            main(["diff", config, f"{project}:bad"]),
            main(["package", "--packager", "none"]),
        ],
        2: [main(["run", config, "step=1"]), main(["status", "nothing"]), main(["jobs", "--executor", "nothing"])],
        126: [main(["shell", key, "--", "no-such-program"])],
        130: [interrupted(["attach", key])],
        141: [closed(["list", "-o", "json"])],
    }
    assert main(["shell", key, "--", "sh", "-c", "exit 42"]) == 42
    assert main(["cancel", key]) == 0
    assert all({code} == set(codes) for code, codes in seen.items()), seen
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE)] == list(seen)


def interrupted(arguments):
    """The exit code of a command at Ctrl-C, once it follows its job."""
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    return main(arguments)


def closed(arguments):
    process = subprocess.Popen([sys.executable, "-m", "nemo_airflow.cli", *arguments], stdout=subprocess.PIPE)
    process.stdout.close()
    return process.wait(300)
