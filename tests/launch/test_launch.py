"""Configs are run from the command line without a DAG: on this machine, through kills, and by two at once."""

import dataclasses
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from nemo_airflow import Config, Script, settings
from nemo_airflow.cli import main
from nemo_airflow.cli.advice import advice_for
from nemo_airflow.config.types.hints import returns_no_config
from nemo_airflow.launch.records import Records


def until(condition, what, seconds=300):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"no {what} within {seconds} s"
        time.sleep(0.05)
    return found


def run_of(record):
    """The run of a launched job as MLflow has it, with the points of its loss and the paths of its files."""
    client = mlflow.MlflowClient(record.tracked.ref.uri)
    run = client.get_run(record.tracked.ref.run_id)
    points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")]
    return run, points, [each.path for each in client.list_artifacts(run.info.run_id)]


def check_recorded(record, steps=3):
    run, points, files = run_of(record)
    assert run.info.status == "FINISHED"
    assert points == [(step, 1 / (step + 1)) for step in range(steps)]
    assert "model.txt" in files
    return run


def newest():
    return Records().find("last")


def start(*arguments, **options):
    """The command in a process of its own, as one that is killed has to be."""
    command = [sys.executable, "-m", "nemo_airflow.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def await_lines(process, text="step 2"):
    for line in process.stdout:
        if line.strip() == text:
            return
    raise AssertionError(process.stderr.read())


def test_a_job_is_followed_to_its_end_and_recorded_as_that_of_a_task(project, capsys):
    assert main(["run", f"{project}:small", "lr=0.3", "--env", "MARK=1"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["step 0", "step 1", "step 2"]
    assert "has succeeded, and returned {'steps': 3}" in err
    run = check_recorded(newest())
    assert run.data.params["lr"] == "0.3"
    assert run.data.tags["nemo_airflow.plan_digest"] == newest().digest
    assert run.data.tags["nemo_airflow.commit"]
    assert "mlflow.parentRunId" not in run.data.tags
    assert run.data.tags["mlflow.user"]


def test_the_trace_of_the_command_reaches_the_job_and_env_goes_before(project, monkeypatch, capsys):
    command = ["run", f"{project}:traced", "--no-track"]
    monkeypatch.setenv("TRACEPARENT", f"00-{'ab' * 16}-{'cd' * 8}-01")
    assert main(command) == 0
    assert capsys.readouterr().out == f"trace 00-{'ab' * 16}-{'cd' * 8}-01\n"
    assert main([*command, "--env", "TRACEPARENT=own"]) == 0
    assert capsys.readouterr().out == "trace own\n"


def test_a_function_is_run_by_its_name_on_an_executor_by_its_kind(project, capsys):
    assert main(["run", f"{project}:train", "steps=2", "--executor", "local", "--no-track"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["step 0", "step 1"]
    assert "returned {'steps': 2}" in err


@pytest.mark.parametrize(
    ("annotation", "is_trainer"),
    [("", False), ("Any", False), ("Config", False), ("'Config[dict]'", False), ("Script", False), ("Missing", False),
     ("None", True), ("dict[str, float]", True), ("float", True), ("'float'", True), ("float | None", False)],
)  # fmt: skip
def test_a_function_is_called_for_its_config_unless_its_annotation_says_that_it_returns_none(annotation, is_trainer):
    names = {"Any": Any, "Config": Config, "Script": Script}
    code = f"from __future__ import annotations\ndef made(){f' -> {annotation}' if annotation else ''}: ..."
    exec(code, names)
    assert returns_no_config(names["made"]) is is_trainer


def test_a_job_that_fails_says_why_and_what_to_do(project, capsys):
    assert main(["run", f"{project}:bad"]) == 1
    out, err = capsys.readouterr()
    assert "ValueError: no data" in out
    assert f"job {newest().key} has failed (user_error): ValueError: no data" in err
    assert main(["why", "bad", "-o", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["state"], facts["failure"], facts["reason"]) == ("failed", "user_error", "ValueError: no data")
    assert f"nemo-airflow logs {newest().key}" in facts["next"]


def test_uncommitted_changes_are_shipped_and_recorded(project, capsys):
    Path("helper.py").write_text("VALUE = 7\n")
    Path(f"{project}.py").write_text("import helper\n" + Path(f"{project}.py").read_text())
    assert main(["run", f"{project}:small"]) == 0
    assert run_of(newest())[0].data.tags["nemo_airflow.dirty"] == "true"


def test_a_dry_run_shows_what_would_be_sent_and_what_changed_and_submits_nothing(project, capsys):
    assert main(["run", f"{project}:small", "--dry-run"]) == 0
    assert "# the first launch of 'small'" in capsys.readouterr().out
    assert not Records().list()
    assert not list(settings.jobs_folder().glob("*"))
    assert main(["run", f"{project}:small"]) == 0
    capsys.readouterr()
    assert main(["run", f"{project}:small", "steps=4", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert f"# changed since job {newest().key}:" in shown
    assert "~ steps: 3 -> 4" in shown
    assert f"files: 1, the largest {project}.py: " in shown
    assert len(Records().list()) == 1


def test_a_dry_run_needs_no_back_end(project, airflow_database, capsys):
    where = "kind: slurm\nssh_conn_id: nowhere"
    assert main(["run", f"{project}:small", "--dry-run", "--executor", where]) == 0
    shown = capsys.readouterr().out
    assert "#!/bin/bash" in shown
    assert "\n# the slurm back-end cannot be asked now: connection 'nowhere' is not defined" in shown
    assert main(["run", f"{project}:small", "--executor", where]) != 0
    assert not Records().list()


def test_a_detached_job_is_recorded_by_a_process_of_its_own(project, capsys):
    assert main(["run", f"{project}:small", "--detach"]) == 0
    assert capsys.readouterr().out.strip() == newest().key
    until(lambda: newest().outcome, "end")
    check_recorded(newest())
    assert main(["attach", "last"]) == 0  # its log can be read again
    assert capsys.readouterr().out.splitlines() == ["step 0", "step 1", "step 2"]


def test_ctrl_c_without_a_terminal_leaves_the_job_and_its_record_to_another_process(project, tmp_path):
    process = start("run", f"{project}:small", f"gate={tmp_path}/gate", stdin=subprocess.DEVNULL)
    await_lines(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130
    assert "goes on, and is recorded in the background" in process.stderr.read()
    (tmp_path / "gate").touch()
    until(lambda: newest().outcome, "end")
    check_recorded(newest())


def test_ctrl_c_at_a_terminal_asks_and_cancels(project, tmp_path):
    ours, theirs = pty.openpty()
    process = start("run", f"{project}:small", "gate=never", stdin=theirs)
    await_lines(process)
    process.send_signal(signal.SIGINT)
    os.write(ours, b"c\n")
    assert process.wait(300) == 1
    text = process.stderr.read()
    assert "[D]etach, [c]ancel it, or [f]ollow on?" in text
    assert f"job {newest().key} was cancelled" in text
    run, points, _ = run_of(newest())
    assert run.info.status == "KILLED"
    assert len(points) == 3


def test_a_command_that_is_killed_loses_nothing_of_its_job(project, tmp_path, capsys):
    process = start("run", f"{project}:small", f"gate={tmp_path}/gate")
    await_lines(process)
    process.kill()
    process.wait()
    [row] = listed(capsys)
    assert row["state"] == "running"
    (tmp_path / "gate").touch()
    assert main(["attach", "last"]) == 0
    assert capsys.readouterr().out.splitlines() == ["step 0", "step 1", "step 2"]
    check_recorded(newest())


def listed(capsys):
    capsys.readouterr()
    assert main(["jobs", "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_job_whose_submission_was_not_answered_is_found_by_its_key(project, capsys):
    assert main(["run", f"{project}:small"]) == 0
    records, key = Records(), newest().key
    records.change(key, handle=None, outcome=None, state={})
    assert main(["attach", key]) == 0
    check_recorded(newest())
    records.change("" or key, handle=None, outcome=None, executor={**newest().executor, "root": "/nowhere"})
    assert main(["attach", key]) == 2
    assert f"job {key} was not submitted" in capsys.readouterr().err


def test_of_two_who_follow_a_job_one_records_it(project, tmp_path, capsys):
    first = start("run", f"{project}:small", f"gate={tmp_path}/gate")
    await_lines(first)
    second = start("attach", "last")
    await_lines(second)
    (tmp_path / "gate").touch()
    assert (first.wait(300), second.wait(300)) == (0, 0)
    assert "another process on this machine records this job" in second.stderr.read()
    check_recorded(newest())


def test_outputs_go_straight_into_a_store_that_the_job_sees(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "store"))
    where = f"kind: local\noutputs_route: {tmp_path}/store"
    assert main(["run", f"{project}:small", "weights=3000000", "--executor", where]) == 0
    assert "sent its outputs to the store itself" in capsys.readouterr().err
    run = check_recorded(newest())
    assert run.data.tags["nemo_airflow.outputs_digest"]


def test_a_job_is_cancelled_by_its_key_and_says_so(project, capsys):
    assert main(["run", f"{project}:small", "gate=never", "--detach"]) == 0
    until(lambda: listed(capsys)[0]["state"] == "running", "start")
    assert main(["logs", "last"]) == 0
    assert main(["cancel", newest().key[:10]]) == 0
    until(lambda: newest().outcome, "end")
    [row] = listed(capsys)
    assert (row["name"], row["state"]) == ("small", "cancelled")
    assert main(["cancel", "last"]) == 0
    assert "has ended before: it is cancelled" in capsys.readouterr().out


def test_what_waits_in_a_record_is_read_by_its_owner_alone(project):
    assert main(["run", f"{project}:small", "--no-track"]) == 0
    [record] = Records().folder.glob("*.json")
    assert record.stat().st_mode & 0o777 == 0o600
    assert newest().run is None


def test_records_of_jobs_that_ended_long_ago_are_collected_and_no_others(project, capsys):
    assert main(["run", f"{project}:small", "--no-track"]) == 0
    ended = newest()
    records = Records()
    records.save(dataclasses.replace(ended, key="runs-still", outcome=None))
    assert main(["store", "gc", "--older-than", "1", "--no-keep-runs"]) == 0
    assert len(records.list()) == 2
    for path in records.folder.iterdir():
        os.utime(path, (0, 0))
    assert main(["store", "gc", "--older-than", "1", "--no-keep-runs"]) == 0
    assert "2 files of records of launched jobs" in capsys.readouterr().out
    assert [record.key for record in records.list()] == ["runs-still"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "{project}:smal"], "has no 'smal'"),
        (["run", "{project}:small", "step=1"], "did you mean 'steps'"),
        (["run", "{project}:small", "lr=fast"], "lr: expected float, got 'fast'"),
        (["run", "{project}:dated"], "gate: is the template '{{ ds }}', which only the run of a DAG has"),
        (["run", "{project}:small", "--executor", "kind: dokcer"], "no executor of kind 'dokcer'"),
        (["run", "{project}:small", "--executor", "kind: docker"], "has no default for container_image"),
        (["run", "{project}:small", "--packager", "kind: gti"], "did you mean 'git'"),
        (["run", "{project}:small", "--packager", "kind: git\nrefs: x"], "did you mean 'ref'"),
        (["run", "{project}:small", "--env", "A B"], "is not NAME=VALUE"),
        (["attach", "nothing"], "no job 'nothing' was launched from this machine"),
        (["status", "../x"], "was launched from this machine"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_submitted(project, capsys, arguments, says):
    assert main([each.format(project=project) for each in arguments]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith("nemo-airflow: ")
    assert "Traceback" not in err
    assert not Records().list()
    assert not list(settings.jobs_folder().glob("*"))


def test_code_in_no_repository_is_not_lost_on_the_way_to_another_machine(project, tmp_path, monkeypatch, capsys):
    (tmp_path / "plain").mkdir()
    Path(f"{project}.py").rename(tmp_path / "plain" / f"{project}.py")
    monkeypatch.chdir(tmp_path / "plain")
    where = "kind: ssh\nssh_conn_id: nowhere"
    assert main(["run", f"{project}:small", "--executor", where]) == 2
    assert "is in no git repository" in capsys.readouterr().err
    assert main(["run", f"{project}:small"]) == 0  # here the job sees it


def test_a_home_that_cannot_be_written_keeps_the_job_from_being_submitted(project, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "file"))
    assert main(["run", f"{project}:small", "--no-track", "--packager", "none"]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "failure", "next_"),
    [
        ("failed", "", "read the traceback"),
        ("failed", "out_of_memory", "give the job more memory"),
        ("lost", "", "look at its machine"),
        ("cancelled", "", "if that was not wanted"),
        ("running", "", "nemo-airflow logs -f k"),
    ],
)
def test_what_to_do_next_is_said_of_each_end(state, failure, next_):
    assert next_ in advice_for(state, failure, "k")


def test_a_record_that_is_damaged_is_named_with_what_to_do(project, capsys):
    Records().folder.mkdir(parents=True)
    (Records().folder / "broken-1.json").write_text("{")
    assert main(["jobs"]) == 2
    assert "broken-1.json cannot be read" in capsys.readouterr().err


def test_no_process_is_left_of_jobs_that_have_ended(project):
    assert main(["run", f"{project}:small", "--detach"]) == 0
    until(lambda: newest().outcome, "end")

    def following():
        return [each for each in psutil.process_iter(["cmdline"]) if newest().key in (each.info["cmdline"] or ())]

    until(lambda: not following(), "end of the process that recorded it")
