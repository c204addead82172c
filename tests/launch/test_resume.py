"""A launched job is continued where it stops before it is done, and elsewhere by hand."""

from pathlib import Path

import yaml
from test_launch import newest, run_of
from test_reproduce import commit

from nemo_airflow.cli import main
from nemo_airflow.launch.records import Records

JOBS = """
import os, signal, time
from pathlib import Path
from nemo_airflow import Preempted, latest_checkpoint, log_metric, save_checkpoint, should_stop


def train(steps: int = 4, stops: int = 2, gate: str = "") -> int:
    found = latest_checkpoint()
    first, stopped = (found.values["step"], found.values["stopped"]) if found else (0, 0)
    for step in range(first, steps):
        if step > first and stopped < stops:
            os.kill(os.getppid(), signal.SIGUSR1)
            while not should_stop():
                time.sleep(0.01)
            with save_checkpoint(step=step, stopped=stopped + 1) as folder:
                (folder / "state").write_text("state")
            raise Preempted
        log_metric("loss", 1 / (step + 1), step)
    return first
"""


def test_a_chain_has_one_run_and_its_limit_is_continued_elsewhere_by_the_key_of_any_attempt(project, tmp_path, capsys):
    Path(f"{project}.py").write_text(JOBS)
    commit("trainer")
    assert main(["run", f"{project}:train", "--max-chain", "2"]) == 1
    last = newest()
    err = capsys.readouterr().err
    assert "attempt 2 of at most 2 goes on from checkpoint 000001-" in err
    assert f"'nemo-airflow resume {last.key}' goes on from its checkpoint 000002-" in err
    assert len(Records().list()) == 2
    assert main(["resume", last.key]) == 0
    run, points, _ = run_of(newest())
    assert run.info.run_id == last.tracked.ref.run_id
    assert points == [(step, 1 / (step + 1)) for step in range(4)]
    assert (run.info.status, run.data.tags["nemo_airflow.state"]) == ("FINISHED", "succeeded")

    elsewhere = tmp_path / "elsewhere.yaml"  # whose jobs do not see the checkpoints, and there is no store
    elsewhere.write_text(yaml.safe_dump({"kind": "local", "root": str(tmp_path / "elsewhere")}))
    assert main(["resume", last.key]) == 2
    assert "is done: give what is to be different" in capsys.readouterr().err
    assert main(["resume", last.key, "stops=0", "--on", str(elsewhere)]) == 0
    out = capsys.readouterr().out
    assert "no checkpoint of an earlier attempt is here: the job begins anew" in out
    other, points, _ = run_of(newest())
    assert other.data.tags["nemo_airflow.resumes"] == run.info.run_id
    assert [step for step, _ in points] == [0, 1, 2, 3]
