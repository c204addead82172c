"""The runner as jobs meet it: a program, a folder, and nothing installed."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from runner_cases import INTERPRETERS, Ran, gone, read_until, wait_for

from nemo_airflow.job import Job, Package
from nemo_airflow.stream import Record


@pytest.mark.parametrize("python", INTERPRETERS.values(), ids=INTERPRETERS.keys())
def test_runs_on_any_python_with_nothing_installed(run, python):
    ran = run("report", arguments={"processes": 2}, python=python)
    assert ran.code == 0, ran.lines
    assert {name for name, *_ in ran.points} == {"loss", "nan", "at", "of_0", "of_1", "of_fork"}


def test_return_values_become_json(run):
    result = run("values").end["result"]
    assert result == {
        "path": "a",
        "color": "red",
        "score": {"value": 1.0},
        "scalar": 1.5,
        "day": "2026-01-02",
        "pair": [1, 2],
        "3": None,
    }


@pytest.mark.parametrize(
    ("function", "why"), [("no_json", "object"), ("too_large", "output_dir"), ("not_finite", "nan")]
)
def test_value_that_is_no_json_never_fails_a_job_that_is_done(run, function, why):
    ran = run(function)
    assert (ran.code, ran.end["state"], ran.end["result"]) == (0, "succeeded", None)
    assert why in ran.warnings[0]


def test_record_separator_of_the_job_is_shown_and_harmless(run):
    assert run("separators").lines == ["a␞{b}"]


def test_metrics_have_steps_and_come_from_every_process(run):
    ran = run("report", arguments={"processes": 1})
    assert [(value, step) for name, value, step, _ in ran.points if name == "loss"] == [(1.0, 0), (0.5, 1)]
    assert [(value, step) for name, value, step, _ in ran.points if name in ("nan", "at")] == [("nan", 0), (2.0, 7)]
    assert ran.records("tags")[0]["tags"] == {"dataset": "v2"}


def test_many_points_are_batched_and_complete(run):
    ran = run("many_points", arguments={"count": 20_000})
    assert [value for _, value, *_ in ran.points] == list(range(20_000))
    assert len(ran.records("metrics")) < 200


def test_bad_metric_is_an_error_in_the_users_own_line(run):
    ran = run("bad_metric")
    assert ran.code == 1
    assert ran.end["error"]["message"] == "log_metric: loss is 'low', not a number"


def test_kept_files_are_announced(run, folder):
    ran = run("keep")
    assert (folder / "outputs" / "models" / "best.bin").read_bytes() == b"12345"
    assert (folder / "outputs" / "direct.txt").exists()
    assert [(artifact["path"], artifact["bytes"]) for artifact in ran.records("artifact")] == [("models/best.bin", 5)]


def test_what_the_job_leaves_running_is_ended(run):
    ran = run("leave_a_child")
    assert (ran.code, ran.lines[0]) == (0, "done")
    assert gone(ran.lines[1])


def test_cancel_lets_the_job_clean_up(start, folder):
    process = start("wait", arguments={"seconds": 600}, grace=30.0)
    stream = read_until(process, b"waiting")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    ran = Ran(process.wait(300), stream + process.stdout.read(), folder)
    assert ran.lines == ["waiting", "cleaning up", "cleaned up"]
    assert (ran.code, ran.end["state"], ran.end["failure"]) == (143, "cancelled", "cancelled")


@pytest.mark.parametrize("loses_a_signal", [True, False])
def test_cancel_is_not_lost_and_lets_the_programs_of_the_clean_up_be(start, folder, loses_a_signal):
    process = start("clean_up_with_a_program", arguments={"loses_a_signal": loses_a_signal}, grace=60.0)
    stream = read_until(process, b"waiting")
    process.send_signal(signal.SIGTERM)
    ran = Ran(process.wait(300), stream + process.stdout.read(), folder)
    assert ran.lines == ["waiting", "program 0"]
    assert (ran.code, ran.end["state"]) == (143, "cancelled")


def test_cancel_of_every_process_lets_the_job_clean_up(start, folder):
    process = start("wait", arguments={"seconds": 600}, grace=30.0)
    stream = read_until(process, b"waiting")
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
    os.kill(child, signal.SIGTERM)
    stream += read_until(process, b"cleaning up")
    process.send_signal(signal.SIGTERM)
    ran = Ran(process.wait(300), stream + process.stdout.read(), folder)
    assert ran.lines == ["waiting", "cleaning up", "cleaned up"]
    assert ran.end["state"] == "cancelled"


def test_cancel_before_the_start_runs_nothing(run, folder):
    (folder / "cancel").touch()
    ran = run("wait", arguments={"seconds": 600})
    assert (ran.end["state"], ran.lines) == ("cancelled", [])


def test_cancel_right_after_the_claim_is_heard(run, folder, tmp_path):
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(
        "import os, signal\nlink = os.link\n"
        "def link_and_end(*paths):\n    link(*paths)\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "os.link = link_and_end\n"
    )
    ran = run("wait", arguments={"seconds": 600}, env={"PYTHONPATH": str(hooks)})
    assert (ran.code, ran.end["state"], ran.lines) == (143, "cancelled", [])
    assert ran.end["told_to_end"]


def test_time_limit_is_named(run):
    ran = run("wait", arguments={"seconds": 600}, time_limit=0.5)
    assert (ran.code, ran.end["state"], ran.end["failure"]) == (124, "timeout", "timeout")
    assert "0.5 s" in ran.end["error"]["message"]


def test_death_of_the_supervisor_ends_the_child(start, folder):
    process = start("wait", arguments={"seconds": 600})
    read_until(process, b"waiting")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate()
    assert children
    wait_for(lambda: all(gone(child) for child in children))
    assert not (folder / "end.json").exists()


def test_second_runner_of_a_folder_does_nothing(start, run, folder):
    process = start("wait", arguments={"seconds": 2})
    read_until(process, b"waiting")
    second = run("wait", arguments={"seconds": 600})
    assert (second.code, second.items) == (75, [])
    process.communicate()
    third = run("wait", arguments={"seconds": 600})
    assert third.code == 75


STARTED_BY_SLURM = {"NEMO_AIRFLOW_OWNER": "slurm:72"}


@pytest.mark.parametrize(("function", "code"), [("leave_a_child", 0), ("memory", 1)])
def test_batch_system_that_starts_a_job_again_that_is_done_runs_nothing(run, folder, function, code):
    assert run(function, env=STARTED_BY_SLURM).code == code
    before = (folder / "end.json").read_bytes()
    again = run(function, env=STARTED_BY_SLURM)
    assert (again.code, again.items) == (75, [])
    assert (folder / "end.json").read_bytes() == before


def test_batch_system_that_told_a_job_to_end_starts_it_again(start, run):
    process = start("wait", arguments={"seconds": 600}, env=STARTED_BY_SLURM)
    read_until(process, b"waiting")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert run("wait", arguments={"seconds": 0}, env=STARTED_BY_SLURM).end["state"] == "succeeded"


@pytest.mark.parametrize(("seconds", "code"), [(2, 75), (600, 0)])
def test_batch_system_that_starts_a_job_again_that_still_runs_waits_for_how_it_ends(start, run, seconds, code):
    first = start("wait", arguments={"seconds": seconds}, env=STARTED_BY_SLURM)
    read_until(first, b"waiting")
    second = start("leave_a_child", env=STARTED_BY_SLURM)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1)
    if seconds > 10:
        first.kill()
    first.communicate()
    output, _ = second.communicate(timeout=300)
    assert second.returncode == code
    assert (b'"type":"start"' in output) == (code == 0)


def test_later_start_that_is_told_to_end_leaves_the_earlier_one_alone(start, folder):
    first = start("wait", arguments={"seconds": 600}, env=STARTED_BY_SLURM)
    read_until(first, b"waiting")
    claim = (folder / "claim").read_text()
    second = start("leave_a_child", env=STARTED_BY_SLURM)
    wait_for(lambda: list(folder.glob("claim.*")))
    second.send_signal(signal.SIGTERM)
    output, _ = second.communicate(timeout=300)
    assert (second.returncode, output) == (75, b"")
    assert (folder / "claim").read_text() == claim
    assert first.poll() is None
    first.kill()
    first.communicate()


def test_later_start_on_another_machine_goes_by_the_signs_of_life(start, folder):
    """Another machine's runner cannot be looked at: it has touched its claim, or it is dead."""
    first = start("wait", arguments={"seconds": 600}, heartbeat=0.5, env=STARTED_BY_SLURM)
    read_until(first, b"waiting")
    claim = json.loads((folder / "claim").read_text())
    (folder / "claim").write_text(json.dumps({**claim, "host": "another"}))
    second = start("leave_a_child", heartbeat=0.5, env=STARTED_BY_SLURM)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(4)
    first.kill()
    first.communicate()
    second.communicate(timeout=300)
    assert second.returncode == 0


def test_end_names_the_kind_of_a_failure_with_its_cause_and_signal(run, folder):
    ran = run("memory")
    assert ran.end["failure"] == "out_of_memory"
    (folder / "claim").unlink()
    text = run("chained").end["error"]["traceback"]
    assert "ZeroDivisionError" in text
    assert "direct cause" in text
    assert "runner" not in text
    (folder / "claim").unlink()
    ran = run("segfault")
    assert (ran.code, ran.end["signal"]) == (128 + signal.SIGSEGV, signal.SIGSEGV)
    assert any("in segfault" in line for line in ran.lines)


def test_target_outside_the_allow_list_is_refused_without_an_import(run, folder):
    ran = run("wait", arguments={"seconds": {"_target_": "os:mkdir", "_args_": ["made"]}})
    assert ran.end["state"] == "failed"
    assert "'os:mkdir' is not allowed" in ran.end["error"]["message"]
    assert ran.end["error"]["traceback"] == ""
    assert not (folder / "work" / "made").exists()


def test_what_the_jobs_own_code_has_needs_no_entry(run, folder):
    (folder / "work" / "other.py").write_text("def seconds(): return 0.01")
    ran = run("wait", arguments={"seconds": {"_target_": "other:seconds"}})
    assert ran.end["state"] == "succeeded"
    # What it imported from elsewhere is not its own.
    (folder / "claim").unlink()
    (folder / "work" / "other.py").write_text("from os import mkdir")
    ran = run("wait", arguments={"seconds": {"_target_": "other:mkdir", "_args_": ["made"]}})
    assert "not allowed here" in ran.end["error"]["message"]
    assert not (folder / "work" / "made").exists()


@pytest.mark.parametrize("bad", ["", "{", "[]", '{"version": 99}'])
def test_bad_job_file_is_said_and_nothing_is_claimed(runner, folder, bad):
    (folder / "job.json").write_text(bad)
    done = subprocess.run([sys.executable, str(runner), str(folder)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "job.json is not a job" in done.stderr
    assert not (folder / "claim").exists()


def pack(folder, *members):
    with tarfile.open(folder / "package.tar.gz", "w:gz") as tar:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            tar.addfile(member)


@pytest.mark.parametrize(
    "members",
    [
        [("../outside", tarfile.REGTYPE, "")],
        [("/tmp/outside", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, "../..")],
        [("link", tarfile.SYMTYPE, "/etc")],
        [("a", tarfile.SYMTYPE, "."), ("a/../../outside", tarfile.REGTYPE, "")],
        [("hard", tarfile.LNKTYPE, "../../job.json")],
        [("device", tarfile.CHRTYPE, "")],
        [("fifo", tarfile.FIFOTYPE, "")],
    ],
)
def test_hostile_package_is_refused(run, folder, members):
    pack(folder, *members)
    ran = run("values", package=Package("d"))
    assert ran.end["state"] == "failed"
    assert members[-1][0] in ran.end["error"]["message"]
    assert {path.name for path in folder.parent.iterdir()} == {"job"}


def test_package_that_is_none_is_refused(run, folder):
    (folder / "package.tar.gz").write_bytes(b"not an archive")
    assert "package.tar.gz" in run("values", package=Package("d")).end["error"]["message"]


def test_resources_and_environment_are_recorded(run):
    ran = run("busy", arguments={"seconds": 2.5}, sample_interval=1.0, env={"SECRET": "hidden-value"})
    samples = [record["values"] for record in ran.records("sample")]
    assert max(sample.get("cpu_percent", 0) for sample in samples) > 0
    assert samples[-1]["cpu_seconds"] >= 2.5
    assert max(sample.get("rss_bytes", 0) for sample in samples) > 50 << 20
    assert samples[-1]["peak_rss_bytes"] > 50 << 20
    (environment,) = ran.records("environment")
    assert environment["python"] == sys.version.split()[0]
    assert "SECRET" in environment["env_keys"]
    assert "hidden-value" not in json.dumps([item.data for item in ran.items if isinstance(item, Record)])


def test_heartbeats_come_as_long_as_the_job_runs(start, folder):
    process = start("wait", arguments={"seconds": 600}, heartbeat=0.2)
    stream = b""
    for _ in range(3):
        stream += read_until(process, b'"type":"heartbeat"')
    process.send_signal(signal.SIGTERM)
    Ran(process.wait(300), stream + process.stdout.read(), folder)


def test_reports_do_nothing_outside_a_job(tmp_path):
    code = "import sys, nemo_airflow as n; n.log_metric('a', 1); n.log_artifact(sys.executable); print(n.output_dir())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "outputs")


def test_shell_jobs_report_through_the_command(start, folder, runner):
    report = "python3 -m nemo_airflow.runner.report"
    script = f"{report} metric loss 0.25 --step 3 && {report} tag data v1"
    plan = {"version": 1, "root": {"_target_": "nemo_airflow.runner.script:run", "inline": script}}
    (folder / "job.json").write_text(Job(key="k", name="n", plan=plan).dumps())
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, str(runner), str(folder)], capture_output=True, env=env)
    ran = Ran(done.returncode, done.stdout, folder)
    assert ran.code == 0, ran.lines
    assert [point[:3] for point in ran.points] == [("loss", 0.25, 3)]
