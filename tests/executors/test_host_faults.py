"""What goes wrong on a host, in its programs or on the way there, ends no job's task and disturbs no neighbour.

The faults are made below the driver: by programs of the login that answer otherwise, and by sshd.
"""

import json
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from job_cases import collect_without_threads_of_others, script_job, start, wait_until
from lab.connections import ssh_connection
from lab.logins import own_login

from nemo_airflow import SlurmExecutor, SSHExecutor, blocking
from nemo_airflow.exceptions import BackendUnavailable, SubmitError
from nemo_airflow.follow import Follower
from nemo_airflow.job import JobState
from nemo_airflow.jobs.judge import Policy
from nemo_airflow.jobs.service import JobService

SQUEUE = """
echo asked >>~/squeue-asked
[ ! -e ~/squeue-empty ] || exit 0
[ -e ~/squeue-sed ] || exec $program "$@"
$program "$@" | sed -f ~/squeue-sed
"""
SACCT = '[ -e ~/sacct-empty ] || exec $program "$@"\n'
DATE = """
[ "$*" = +%s ] && [ -e ~/clock-off ] || exec $program "$@"
echo $(($($program +%s) + $(cat ~/clock-off)))
"""
STAT = """
case "$*" in
  *log*) if [ -e ~/sizes-stale ]; then echo asked >>~/stat-asked; $program "$@" | sed 's/^[0-9]*/0/'; exit; fi ;;
esac
exec $program "$@"
"""


@pytest.fixture(scope="module")
def login(lab, lab_slurm):
    with own_login(lab, lab_slurm) as login:
        for program, script in {"squeue": SQUEUE, "sacct": SACCT, "date": DATE, "stat": STAT}.items():
            login.replace(program, script)
        os.environ["AIRFLOW_CONN_FAULTY"] = ssh_connection(login.ssh)
        yield login


@pytest.fixture
def fault(login):
    """Makes a fault, which lasts until its file is removed, or the test is over."""
    made = []

    def make(name, text=""):
        made.append(login.write(name, text))
        return made[-1]

    yield make
    for path in made:
        path.unlink(missing_ok=True)


def executor_of(kind, **fields):
    return kind(ssh_conn_id="faulty", grace=1, **fields)


class Waiting:
    """A job that goes on when it is told."""

    def __init__(self, executor, login, text="echo begun; until [ -e ~/gates/{gate} ]; do sleep 0.2; done; echo over"):
        self._gate = uuid.uuid4().hex
        self._login = login
        self.job = script_job(text.format(gate=self._gate))
        self.executor = executor
        self.driver, self.handle = start(executor, self.job)
        self.folder = login.home / ".nemo_airflow/jobs" / self.job.key
        self.warnings = []

    def go_on(self):
        self._login.write(f"gates/{self._gate}", "")

    def status(self, driver=None, policy=None):
        return blocking.run(JobService(driver or self.driver, policy).status([self.handle]))[self.handle.key]

    def await_running(self):
        service = JobService(self.driver)
        wait_until(
            lambda: blocking.run(service.status([self.handle]))[self.handle.key].state is JobState.RUNNING, "it to run"
        )

    def follow(self):
        lines = []
        follower = Follower(
            self.executor, self.handle, on_line=lambda line: lines.append(line.text), warn=self.warnings.append
        )
        return blocking.run(follower.run(), 300), lines

    def said(self, text):
        return any(text in warning for warning in self.warnings)


@pytest.fixture
def beside():
    with ThreadPoolExecutor(4) as pool:
        yield pool


# The queue


def test_queue_that_answers_empty_loses_no_job_that_is_new_to_its_triggerer(login, fault, beside):
    waiting = Waiting(executor_of(SlurmExecutor), login)
    waiting.await_running()
    fault("sacct-empty")
    empty = fault("squeue-empty")
    followed = beside.submit(waiting.follow)
    asked = fault("squeue-asked")
    wait_until(lambda: len(asked.read_text().split()) >= 3, "three empty answers")
    empty.unlink()
    waiting.go_on()
    outcome, lines = followed.result()
    assert outcome.succeeded, outcome
    assert lines == ["begun", "over"]


def test_job_that_the_accounting_calls_running_is_not_lost_by_an_empty_queue(login, fault, lab_slurm):
    waiting = Waiting(executor_of(SlurmExecutor), login)
    waiting.await_running()
    wait_until(lambda: "RUNNING" in login.ssh.run(f"sacct -nX -j {waiting.handle.id} -o state"), "the accounting")
    impatient = Policy(lost_after=0, lost_answers=1)
    fault("squeue-empty")
    assert waiting.status(waiting.executor.connect(), impatient).state is JobState.RUNNING
    fault("sacct-empty")
    assert waiting.status(waiting.executor.connect(), impatient).state is JobState.LOST
    blocking.run(waiting.driver.cancel([waiting.handle]))
    waiting.go_on()


@pytest.mark.parametrize("seconds", [-60, 60])
def test_job_is_seen_at_once_where_the_clock_of_the_host_is_off(login, fault, seconds):
    fault("clock-off", str(seconds))
    executor = executor_of(SlurmExecutor)
    first = Waiting(executor, login)
    blocking.run(first.driver.look([first.handle]))  # what the queue said is remembered from here on
    second = Waiting(executor, login)
    seen = blocking.run(first.driver.look([second.handle]))[second.handle.key]
    assert seen.queue is not None
    for waiting in (first, second):
        waiting.go_on()
        assert waiting.follow()[0].succeeded


def test_state_that_this_release_does_not_know_is_a_trouble_of_that_job_alone(login, fault, beside):
    executor = executor_of(SlurmExecutor)
    strange, neighbour = Waiting(executor, login), Waiting(executor, login)
    strange.await_running()
    unknown = fault("squeue-sed", f"/^{strange.handle.id}|/s/|RUNNING|/|HIBERNATING|/\n")
    followed = beside.submit(strange.follow)
    neighbour.go_on()
    assert neighbour.follow()[0].succeeded
    assert neighbour.warnings == []
    wait_until(lambda: strange.said("HIBERNATING"), "the trouble to be said")
    unknown.unlink()
    strange.go_on()
    assert followed.result()[0].succeeded


# The folder


def test_end_of_a_log_that_the_host_sees_late_is_awaited(login, fault, beside):
    stale = fault("sizes-stale")
    asked = fault("stat-asked")
    waiting = Waiting(executor_of(SSHExecutor), login)
    followed = beside.submit(waiting.follow)
    waiting.go_on()
    wait_until(lambda: (waiting.folder / "end.json").exists(), "the end mark")
    seen = len(asked.read_text().split())
    wait_until(lambda: len(asked.read_text().split()) > seen + 3, "some more looks")
    stale.unlink()
    outcome, lines = followed.result()
    assert outcome.succeeded
    assert lines == ["begun", "over"]
    assert waiting.warnings == []


def test_empty_claim_is_a_trouble_of_that_job_alone_which_is_lost_after_a_while(login, beside, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_LOST_AFTER", "2")
    executor = executor_of(SSHExecutor, root="~/claims")
    damaged, neighbour = Waiting(executor, login), Waiting(executor, login)
    claim = login.home / f"claims/jobs/{damaged.job.key}/claim"
    text = claim.read_text()
    claim.write_text("")
    damaged_end = beside.submit(damaged.follow)
    neighbour_end = beside.submit(neighbour.follow)
    assert damaged_end.result()[0].status.state is JobState.LOST
    assert "is damaged" in damaged_end.result()[0].message
    assert blocking.run(damaged.driver.find([damaged.job.key, neighbour.job.key])).keys() == {neighbour.job.key}
    with pytest.raises(SubmitError, match="is damaged, as after a power cut"):
        blocking.run(damaged.driver.submit(executor.render(damaged.job)))
    neighbour.go_on()
    assert neighbour_end.result()[0].succeeded
    claim.write_text(text)
    damaged.go_on()


def test_job_of_another_host_behind_one_name_is_not_dead(login, beside):
    waiting = Waiting(executor_of(SSHExecutor), login)
    claim = waiting.folder / "claim"
    text = claim.read_text()
    there = json.loads(text)
    claim.write_text(json.dumps({**there, "host": "login-2"}))
    followed = beside.submit(waiting.follow)
    wait_until(lambda: waiting.said("it runs on login-2"), "the trouble to be said")
    with pytest.raises(BackendUnavailable, match="cannot be cancelled: it runs on login-2"):
        blocking.run(waiting.driver.cancel([waiting.handle]))
    claim.write_text(text)
    waiting.go_on()
    assert followed.result()[0].succeeded


# The login


@pytest.mark.parametrize("kind", [SSHExecutor, SlurmExecutor])
def test_login_that_is_refused_while_a_job_is_followed_is_an_outage(login, beside, kind):
    waiting = Waiting(executor_of(kind), login)
    followed = beside.submit(waiting.follow)
    waiting.await_running()
    login.refuse()
    try:
        wait_until(lambda: waiting.said("refused the login"), "the outage to be said")
        assert not followed.done()
    finally:
        login.admit()
    waiting.go_on()
    outcome, lines = followed.result()
    assert outcome.succeeded
    assert lines == ["begun", "over"]
    assert waiting.said("tells again")


def test_slow_answer_is_no_silence(login):
    driver = executor_of(SSHExecutor).connect()
    slow = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done"
    assert blocking.run(driver.shell.run(slow, silence=2)).text.split() == list("12345678")
    with pytest.raises(BackendUnavailable, match="does not answer"):
        blocking.run(driver.shell.run("sleep 60", silence=2))
    blocking.run(driver.close())


def test_outputs_of_eight_jobs_at_once_need_no_thread_of_others(login, tmp_path):
    executor = executor_of(SSHExecutor)
    text = 'head -c 3000000 /dev/urandom >"$NEMO_AIRFLOW_OUTPUT_DIR/model.bin"'
    jobs = [Waiting(executor, login, text) for _ in range(2)]
    for job in jobs:
        assert job.follow()[0].succeeded

    collected = collect_without_threads_of_others(executor, [job.handle for job in jobs], tmp_path)
    assert [[str(path) for path in paths] for paths in collected] == [["model.bin"]] * 8
    assert {path.stat().st_size for path in tmp_path.rglob("model.bin")} == {3_000_000}


# What is kept


@pytest.mark.parametrize("kind", [SSHExecutor, SlurmExecutor])
def test_what_ended_jobs_leave_goes_by_their_ttl_and_what_runs_stays(login, kind):
    root = f"~/kept-{uuid.uuid4().hex[:8]}"
    kept_for_ever = Waiting(executor_of(kind, root=root, ttl=None), login, "true")
    over = Waiting(executor_of(kind, root=root, ttl=0), login, "true")
    runs = Waiting(executor_of(kind, root=root, ttl=0), login)
    young = Waiting(executor_of(kind, root=root), login, "true")
    for ended in (kept_for_ever, over, young):
        assert ended.follow()[0].succeeded
    runs.await_running()
    folder = login.home / root.removeprefix("~/")
    (runner,) = (folder / "runner").iterdir()
    old = [login.write(f"{folder.name}/{name}", "") for name in ("packages/old.tar.gz", "zstd/old.yes")]
    (folder / "runner/old").mkdir()
    for path in (*old, folder / "runner/old", runner):
        os.utime(path, (0, 0))
    time.sleep(1.1)  # the host's clock has seconds only: more than 0 of them

    def left():
        return {path.name for path in (folder / "jobs").iterdir()}

    wait_until(
        lambda: blocking.run(over.driver.sweep()) or over.job.key not in left(), "the end to be seen by the back-end"
    )
    assert left() == {kept_for_ever.job.key, runs.job.key, young.job.key}
    assert not any(path.exists() for path in old)
    assert list((folder / "runner").iterdir()) == [runner]
    runs.go_on()
    assert runs.follow()[0].succeeded
