"""SIGUSR1 and SIGUSR2, by which a batch system warns a job: they reach what handles them, and kill nothing."""

import os
import signal

import pytest
from runner_cases import Ran, read_until

CODE = """
import os, signal, subprocess, sys, time

def save_and_return(workers=0):
    saved = []
    signal.signal(signal.SIGUSR1, lambda number, frame: saved.append(os.getpid()))
    for _ in range(workers):  # as the workers of a data loader, which inherit the handler
        if os.fork() == 0:
            while not saved:
                time.sleep(0.01)
            print("a worker saves", flush=True)
            os._exit(0)
    helper = subprocess.Popen(["sleep", "600"])
    print("waiting", flush=True)
    while not saved:
        time.sleep(0.01)
    time.sleep(0.3)
    assert helper.poll() is None
    return "saved"

def save_in_a_rank():
    rank = os.environ["RANK"]
    saved = []
    signal.signal(signal.SIGUSR1, lambda number, frame: saved.append(number))
    open(f"waiting{rank}", "w").close()
    while not os.path.exists("waiting0") or not os.path.exists("waiting1"):
        time.sleep(0.01)
    if rank == "0":
        print("waiting", flush=True)
    while not saved:
        time.sleep(0.01)
    print("saved", flush=True)

def go_on_when_told():
    print("waiting", flush=True)
    while not os.path.exists("go on"):
        time.sleep(0.01)
    return "done"
"""
SAVING = """
import signal, sys, time
def save(number, frame):
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGUSR1, save)
print("waiting", flush=True)
time.sleep(600)
"""
SPAWN = ("{python}", "{runner}", "--spawn", "2", "{folder}")


@pytest.fixture
def warn(start, folder):
    """Starts a job, sends its runner a signal once it waits, and returns what it left."""

    def warn_job(function, number=signal.SIGUSR1, **options):
        process = start(function, code=CODE, **options)
        stream = read_until(process, b"waiting")
        process.send_signal(number)
        rest, _ = process.communicate(timeout=300)
        return Ran(process.returncode, stream + rest, folder)

    return warn_job


def test_handler_of_the_function_runs_once_and_its_helpers_and_workers_are_let_be(warn):
    ran = warn("save_and_return", arguments={"workers": 2})
    assert (ran.end["state"], ran.end["result"], ran.lines) == ("succeeded", "saved", ["waiting"])


def test_each_of_several_processes_gets_it_and_not_what_started_them(warn):
    ran = warn("save_in_a_rank", launch=SPAWN)
    assert ran.end["state"] == "succeeded"
    assert sorted(ran.lines) == ["[0] saved", "[0] waiting", "[1] saved"]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_job_without_a_handler_goes_on_and_is_told_how_to_have_one(start, folder, number):
    process = start("go_on_when_told", code=CODE)
    stream = read_until(process, b"waiting")
    process.send_signal(number)
    stream += read_until(process, b"no process of the job handles it")
    (folder / "work" / "go on").touch()
    rest, _ = process.communicate(timeout=300)
    ran = Ran(process.returncode, stream + rest, folder)
    assert (ran.end["state"], ran.end["result"]) == ("succeeded", "done")
    assert f"signal.signal(signal.{number.name}, save)" in ran.warnings[0]


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ({"path": "train.py", "entrypoint": "python3"}, ["waiting", "saved"]),
        ({"inline": "python3 train.py; echo done"}, ["waiting", "saved", "done"]),
        (
            {"inline": "trap 'echo shell saves; kill $!; exit 0' USR1; sleep 600 & echo waiting; wait"},
            ["waiting", "shell saves"],
        ),
    ],
)
def test_script_gets_it_where_it_handles_it(warn, folder, arguments, lines):
    (folder / "work" / "train.py").write_text(SAVING)
    ran = warn("nemo_airflow.runner.script:run", arguments=arguments)
    assert (ran.end["state"], ran.lines) == ("succeeded", lines)


def test_signal_before_the_job_runs_is_not_the_runners_death(start, folder):
    process = start("go_on_when_told", code=CODE)
    os.kill(process.pid, 0)
    read_until(process, b'"type":"start"')
    process.send_signal(signal.SIGUSR1)
    (folder / "work" / "go on").touch()
    process.communicate(timeout=300)
    assert process.returncode == 0
