"""What a job saves is found by its next attempt, whole or not at all; and it is told in time that it is to end."""

import signal
from pathlib import Path

import pytest
from runner_cases import Ran, read_until

from nemo_airflow.runner.checkpoints import Checkpoint, kept_names

CODE = """
import os, signal, time
from nemo_airflow.runner import (
    Preempted, checkpoint_dir, latest_checkpoint, log_metric, on_preempt, save_checkpoint, should_stop
)

def train(steps, killed_at=-1):
    checkpoint_dir(last=2, best="loss")
    found = latest_checkpoint()
    first = found.values["step"] + 1 if found else 0
    for step in range(first, steps):
        log_metric("seen", step)
        with save_checkpoint(step=step, loss=abs(step - 1)) as folder:
            (folder / "state").write_text(str(step) * 1000)
            if step == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
    return [first, sorted(latest.name[:6] for latest in checkpoint_dir().iterdir() if latest.name[0] != ".")]

def train_until_told(steps):
    found = latest_checkpoint()
    print("waiting", flush=not should_stop())
    for step in range(found.values["step"] + 1 if found else 0, steps):
        while step == 1 and not should_stop():
            time.sleep(0.01)
        if should_stop():
            with save_checkpoint(step=step) as folder:
                (folder / "state").write_text("state")
            raise Preempted
    return step

def call_back():
    on_preempt(lambda: os.write(1, b"saved\\n"))
    print("waiting", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def next_attempt(run, folder):
    """Runs the job again as its next attempt, in a folder of its own."""

    def run_again(function, **options):
        folder.rename(folder.parent / "first")
        (folder / "work").mkdir(parents=True)
        return run(function, code=CODE, earlier=("first",), **options)

    return run_again


def test_the_next_attempt_goes_on_from_the_newest_checkpoint_that_is_whole(run, next_attempt, folder):
    killed = run("train", code=CODE, arguments={"steps": 9, "killed_at": 4})
    assert (killed.end["state"], killed.end["checkpoint"][:6]) == ("failed", "000004")
    kept = sorted(path.name for path in (folder / "checkpoints").glob("[0-9]*"))
    assert [name[:6] for name in kept] == ["000002", "000003", "000004"]  # the best, and the last two
    state = folder / "checkpoints" / kept[-1] / "state"
    state.write_text(state.read_text()[:-7])  # cut by a crash of the disk
    again = next_attempt("train", arguments={"steps": 6})
    assert again.end["result"] == [3, ["000002", "000005", "000006"]]
    assert any(line.startswith(f"checkpoint {kept[-1]} is damaged, so the one before it") for line in again.lines)
    assert f"goes on from checkpoint {kept[-2]}" in again.lines
    # Without steps of their own the points go on, too: after those of the checkpoint.
    assert [point[:3] for point in again.points] == [("seen", 3, 3), ("seen", 4, 4), ("seen", 5, 5)]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_a_job_that_is_told_saves_its_state_and_stops_to_be_continued(start, folder, number):
    process = start("train_until_told", code=CODE, arguments={"steps": 4}, grace=30.0)
    stream = read_until(process, b"waiting")
    process.send_signal(number)
    rest, _ = process.communicate(timeout=300)
    stopped = Ran(process.returncode, stream + rest, folder)
    how = ("cancelled", "cancelled") if number == signal.SIGTERM else ("failed", "preempted")
    assert (stopped.end["state"], stopped.end["failure"]) == how
    assert (stopped.code, stopped.end["checkpoint"][:6]) == (143, "000001")


MINUTE = 60.0


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ((1, "", "min", 0), [6]),
        ((3, "", "min", 0), [4, 5, 6]),
        ((1, "loss", "min", 0), [2, 6]),
        ((1, "loss", "max", 0), [4, 6]),
        ((1, "loss", "min", 10), [1, 2, 4, 6]),  # the first within each ten minutes, the best, and the last
        ((1, "", "min", 30), [1, 6]),
        ((1, "absent", "min", 0), [6]),
    ],
)
def test_each_policy_keeps_its_own(policy, kept):
    saved = [(0, 0.5), (4, 0.1), (9, 0.3), (10, 0.9), (14, 0.2), (19, 0.4)]
    found = [
        Checkpoint(Path(str(number)), number, {"loss": loss}, (1000 + minute) * MINUTE, {})
        for number, (minute, loss) in enumerate(saved, 1)
    ]
    assert sorted({*map(int, kept_names(found, *policy))}) == kept


def test_what_is_called_before_the_end_runs_once_and_the_job_ends(start, folder):
    process = start("call_back", code=CODE, grace=30.0)
    stream = read_until(process, b"waiting")
    process.terminate()
    rest, _ = process.communicate(timeout=300)
    ended = Ran(process.returncode, stream + rest, folder)
    assert (ended.end["state"], ended.lines) == ("cancelled", ["waiting", "saved"])
