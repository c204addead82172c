"""Scripts as jobs: which failure ends them, and when their lines come."""

import os
import signal
import sys
from pathlib import Path

import pytest
from runner_cases import Ran, read_until

TARGET = "nemo_airflow.runner.script:run"


@pytest.fixture
def start_script(start):
    def start_job(**arguments):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return start(TARGET, arguments=arguments, env={"PATH": path})

    return start_job


@pytest.fixture
def run_script(start_script, folder):
    def run_job(**arguments):
        process = start_script(**arguments)
        stream, _ = process.communicate(timeout=300)
        return Ran(process.returncode, stream, folder)

    return run_job


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"inline": "exit_with() { return 5; }\nexit_with\necho done"}, 5),
        ({"inline": "false | cat\necho done"}, 1),
        ({"inline": "false\necho done", "entrypoint": "/bin/bash"}, 1),
        ({"inline": "false\necho done", "entrypoint": "sh"}, 1),
        ({"inline": "no_such_program\necho done"}, 127),
    ],
)
def test_first_command_of_a_text_that_fails_fails_the_job(run_script, arguments, code):
    ran = run_script(**arguments)
    assert (ran.end["state"], ran.end["exit_code"]) == ("failed", code)
    assert "done" not in ran.lines


@pytest.mark.parametrize(
    "arguments",
    [
        {"inline": "false || true\n[ 1 = 2 ] && echo no\nif false; then echo no; fi\necho done"},
        {"inline": "set +e +o pipefail\nfalse | cat\nfalse\necho done"},
        {"inline": "false\necho done", "entrypoint": "bash +e"},
        {"inline": "print('done')", "entrypoint": "python"},
    ],
)
def test_failure_that_a_text_allows_is_allowed(run_script, arguments):
    ran = run_script(**arguments)
    assert (ran.end["state"], ran.lines) == ("succeeded", ["done"])


def test_file_is_run_with_its_own_options(run_script, folder):
    (folder / "work" / "train.sh").write_text("false\necho done\n")
    assert run_script(path="train.sh").end["state"] == "succeeded"


PRINTING = "print('first')\nimport time\ntime.sleep(600)"


@pytest.mark.parametrize("arguments", [{"path": "train.py", "entrypoint": "python"}, {"inline": "python train.py"}])
def test_lines_of_python_come_as_they_are_printed(start_script, folder, arguments):
    (folder / "work" / "train.py").write_text(PRINTING)
    process = start_script(**arguments)
    stream = read_until(process, b"first")
    assert b'"type":"end"' not in stream
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)


def test_last_lines_before_a_kill_are_there(start_script, folder):
    (folder / "work" / "train.py").write_text(
        "import os, signal\nfor number in range(3): print(number)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = start_script(path="train.py", entrypoint="python")
    stream, _ = process.communicate(timeout=300)
    ran = Ran(process.returncode, stream, folder)
    assert (ran.lines, ran.end["exit_code"]) == (["0", "1", "2"], 137)


@pytest.mark.parametrize(("env", "seen"), [({}, "1"), ({"PYTHONUNBUFFERED": ""}, "")])
def test_a_users_own_word_on_buffering_counts(run_script, env, seen):
    ran = run_script(inline="import os\nprint([os.environ['PYTHONUNBUFFERED']])", entrypoint="python", env=env)
    assert ran.lines == [str([seen])]
