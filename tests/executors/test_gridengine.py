"""What only Grid Engine does, on the lab's real cluster; and what its commands answer, which needs none."""

import dataclasses
import subprocess

import pytest
from job_cases import follow, run, script_job, start, status, submit, wait_until

from nemo_airflow import GridEngineExecutor, blocking
from nemo_airflow.exceptions import BackendUnavailable, ExecutorArgumentError, SubmitError
from nemo_airflow.executors.gridengine.scheduler import GridEngine
from nemo_airflow.job import FailureKind, JobState

QUEUE = """<?xml version='1.0'?>
<job_info  xmlns:xsd="http://arc.liv.ac.uk/qstat.xsd"><queue_info>
  <job_list state="running"><JB_job_number>6</JB_job_number><JB_name>a-job</JB_name><state>{}</state></job_list>
</queue_info><job_info></job_info></job_info>
"""


@pytest.fixture
def executor(ssh_conn_id, lab_gridengine):
    return GridEngineExecutor(ssh_conn_id=ssh_conn_id, settings=lab_gridengine, root="~/gridengine tests", grace=2)


@pytest.fixture
def manage(lab_gridengine):
    """Runs a command as the cluster's manager."""

    def run(command):
        script = f". {lab_gridengine} && {command}"
        return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout

    return run


# What the commands say


@pytest.mark.parametrize(
    ("word", "state", "stuck"),
    [
        ("qw", JobState.PENDING, None),
        ("hqw", JobState.PENDING, None),
        ("Rq", JobState.PENDING, None),
        ("dqw", JobState.PENDING, None),
        ("t", JobState.RUNNING, None),
        ("r", JobState.RUNNING, None),
        ("Rr", JobState.RUNNING, None),
        ("dr", JobState.RUNNING, None),
        ("S", JobState.RUNNING, None),
        ("Eqw", JobState.PENDING, FailureKind.NODE_FAILURE),
    ],
)
def test_letters_of_a_state_are_read(word, state, stuck):
    fact = GridEngine().parse_queue(QUEUE.format(word))["6"].fact
    assert (fact.status.state, fact.stuck) == (state, stuck)


def test_letter_that_this_release_does_not_know_is_none():
    entry = GridEngine().parse_queue(QUEUE.format("Xy"))["6"]
    assert (entry.fact, entry.word) == (None, "Xy")


def test_answer_that_is_cut_off_is_no_answer():
    with pytest.raises(ValueError, match="job_info"):
        GridEngine().parse_queue(QUEUE.format("r")[:100])


def record(failed, code):
    return (
        f"{'=' * 60}\njobname      a-job               \njobnumber    6  \nfailed       {failed}\nexit_status  {code}\n"
    )


@pytest.mark.parametrize(
    ("records", "state", "failure", "code"),
    [
        ([("0    ", "0   ")], JobState.SUCCEEDED, None, 0),
        ([("0    ", "7   ")], JobState.FAILED, FailureKind.USER_ERROR, 7),
        ([("100 : assumedly after job", "139  (Killed)")], JobState.FAILED, FailureKind.USER_ERROR, 139),
        ([("37  : qmaster enforced h_rt limit", "0")], JobState.FAILED, FailureKind.TIMEOUT, 137),
        ([("26  : opening input/output file", "0")], JobState.FAILED, FailureKind.NODE_FAILURE, None),
        ([("25  : rescheduling", "0"), ("0", "0")], JobState.SUCCEEDED, None, 0),
        ([("25  : rescheduling", "99")], JobState.PENDING, None, None),
    ],
)  # fmt: skip
def test_exit_code_of_zero_is_a_success_only_where_nothing_else_failed(records, state, failure, code):
    history = GridEngine().parse_history("".join(record(*each) for each in records))
    status = history["6"].fact.status
    assert (status.state, status.failure, status.exit_code) == (state, failure, code)


# What is submitted


def test_script_is_what_a_person_would_write():
    executor = GridEngineExecutor(
        queue="gpu.q", pe="smp", slots=4, h_vmem="4G", resources={"gpu": 2}, time="01:00:00", project="ml",
        setup_lines="module load cuda", additional_parameters={"ac": "why=this", "hard": True},
    )  # fmt: skip
    text = executor.render(script_job("true")).files["start.sh"]
    for line in ("-l h_rt=3690,h_vmem=4G,gpu=2", "-q gpu.q", "-P ml", "-pe smp 4", "-ac why=this", "-hard", "-o log"):
        assert f"#$ {line}\n" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"additional_parameters": {"o": "elsewhere"}},
        {"additional_parameters": {"-t": "1-3"}},
        {"additional_parameters": {"m": "two words"}},
        {"queue": "a b"},
        {"slots": 4},
        {"job_name_prefix": "1-"},
        {"job_name_prefix": "two words"},
        {"resources": {"gpu": "1\n#$ -o elsewhere"}},
    ],
)
def test_what_qsub_could_not_take_or_would_undo_following_is_refused(fields):
    with pytest.raises(ExecutorArgumentError, match="GridEngineExecutor"):
        GridEngineExecutor(**fields).render(script_job("true"))


# On the cluster


@pytest.mark.parametrize("code", [99, 100])
def test_exit_codes_that_mean_something_to_grid_engine_are_the_jobs_own(executor, code):
    outcome, lines, _ = run(executor, f"echo once; exit {code}")
    assert (outcome.status.state, outcome.status.exit_code) == (JobState.FAILED, code)
    assert lines == ["once"]


def test_slots_of_a_parallel_environment_and_resources_reach_the_job(executor):
    executor = dataclasses.replace(executor, pe="smp", slots=2, resources={"gpu": 1}, job_name_prefix="lab.")
    outcome, lines, _ = run(executor, "echo $NSLOTS $JOB_NAME")
    assert outcome.succeeded, outcome
    assert lines[0].startswith("2 lab.t")


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"queue": "nowhere.q"}, FailureKind.USER_ERROR, "unknown queue"),
        ({"resources": {"nosuch": 1}}, FailureKind.USER_ERROR, "unknown resource"),
        ({"resources": {"gpu": 40}}, FailureKind.QUOTA, "no suitable queues"),
        ({"additional_parameters": {"nosuchoption": True}}, FailureKind.USER_ERROR, "nosuchoption"),
    ],
)
def test_refusal_is_grid_engines_own_and_leaves_nothing(executor, lab_ssh, fields, kind, words):
    job = script_job("true")
    with pytest.raises(SubmitError, match=words) as refused:
        start(dataclasses.replace(executor, **fields), job)
    assert refused.value.kind is kind
    assert "\n" not in str(refused.value)
    assert job.key not in lab_ssh.run("ls 'gridengine tests/jobs'")


def test_master_that_does_not_answer_says_nothing_of_a_job(executor, lab_ssh):
    handle = submit(executor, script_job("sleep 5"))
    nobody = (
        f"{{ cat {executor.settings}; echo export SGE_QMASTER_PORT=9; }} >settings-away.sh && realpath settings-away.sh"
    )
    away = dataclasses.replace(executor, settings=lab_ssh.run(nobody).strip())
    with pytest.raises(BackendUnavailable, match="does not answer"):
        blocking.run(away.connect().look([handle]), 300)
    with pytest.raises(BackendUnavailable, match="did not accept the job"):
        start(away, script_job("true"))
    assert follow(executor, handle)[0].succeeded


def test_answer_of_qsub_that_was_lost_starts_no_second_job(executor, lab_ssh):
    job = script_job("echo once; sleep 3")
    request = executor.render(job)
    driver = executor.connect()
    blocking.run(driver._lay_out(request))
    # As a submit leaves it that was cut off between qsub and its answer.
    folder = f"'gridengine tests/jobs/{job.key}'"
    first = lab_ssh.run(f". {executor.settings}; cd {folder} && mkdir submitting && qsub -terse start.sh").strip()
    handle = blocking.run(driver.submit(request))
    assert handle.id == first
    outcome, lines, _ = follow(executor, handle)
    assert outcome.succeeded
    assert lines == ["once"]


def test_second_job_of_one_key_waits_and_finds_the_work_taken(executor, lab_ssh):
    job = script_job("echo once; sleep 1")
    handle = submit(executor, job)
    again = f". {executor.settings}; cd 'gridengine tests/jobs/{job.key}' && qsub -terse start.sh"
    second = lab_ssh.run(again).strip()
    outcome, lines, _ = follow(executor, handle)
    assert outcome.succeeded
    wait_until(lambda: second not in lab_ssh.run(f". {executor.settings}; qstat"), "the second job to end")
    assert follow(executor, handle)[1] == lines == ["once"]


def test_runs_of_one_job_that_overlap_after_a_forced_requeue_do_the_work_one_after_the_other(executor, manage):
    """The new run starts at once, and the old one lives until its host hears of it, under the same id."""
    text = """
        echo begun >>marker
        if [ $(wc -l <marker) -gt 1 ]; then echo second $(date +%s%N); exit; fi
        while :; do echo first $(date +%s%N); sleep 0.2; done
    """
    driver, handle = start(executor, script_job(text, heartbeat=1))
    wait_until(lambda: status(driver, handle).state is JobState.RUNNING, "the job to run")
    folder = f"~hpc/'gridengine tests'/jobs/{handle.key}"
    wait_until(lambda: "first" in manage(f"cat {folder}/log 2>/dev/null || true"), "the first run")
    manage(f"qmod -rj {handle.id}")
    outcome, lines, _ = follow(executor, handle, seconds=240)
    assert outcome.succeeded, outcome
    times = [line.split() for line in lines if line.startswith(("first", "second"))]
    assert [run for run, _ in times].count("second") == 1
    assert [run for run, _ in times][-1] == "second"
    assert [int(at) for _, at in times] == sorted(int(at) for _, at in times)


def test_job_that_could_not_be_started_is_given_up(executor, lab_ssh):
    held = dataclasses.replace(executor, additional_parameters={"h": True})
    driver, handle = start(held, script_job("true"))
    jobs = "'gridengine tests/jobs'"
    lab_ssh.run(f". {executor.settings}; mv {jobs}/{handle.key} {jobs}/{handle.key}.away && qrls {handle.id}")
    wait_until(lambda: "Eqw" in lab_ssh.run(f". {executor.settings}; qstat"), "the host to fail")
    wait_until(lambda: status(driver, handle).state.is_final, "the end")
    assert status(driver, handle).failure is FailureKind.NODE_FAILURE
    wait_until(lambda: "Eqw" not in lab_ssh.run(f". {executor.settings}; qstat"), "the job to leave the queue")


WARNED = """
import signal, sys, time
def warned(number, frame):
    signal.signal(number, signal.SIG_IGN)
    print("warned", flush=True)
    sys.exit(0)
signal.signal(signal.SIGUSR2, warned)
print("waiting", flush=True)
time.sleep(600)
"""


def test_warning_before_a_job_is_deleted_reaches_its_handler(executor, manage):
    executor = dataclasses.replace(executor, notify=True)
    driver, handle = start(executor, script_job(f"exec python3 - <<'END'\n{WARNED}END\n"))
    wait_until(lambda: status(driver, handle).state is JobState.RUNNING, "the job to run")
    log = f"~hpc/'gridengine tests'/jobs/{handle.key}/log"
    wait_until(lambda: "waiting" in manage(f"cat {log} 2>/dev/null || true"), "the handler")
    manage(f"qdel {handle.id}")
    outcome, lines, _ = follow(executor, handle)
    assert outcome.succeeded, outcome
    assert set(lines) == {"waiting", "warned"}


def test_job_that_somebody_deleted_is_a_failure_once_the_accounting_knows(executor, manage):
    driver, handle = start(executor, script_job("sleep 600"))
    wait_until(lambda: status(driver, handle).state is JobState.RUNNING, "the job to run")
    manage(f"qdel {handle.id}")
    outcome = follow(executor, handle).outcome
    assert outcome.status.state is JobState.FAILED
    assert "failed 100" in outcome.message
