"""What PBS answers, as its man pages and reports of users have it; no PBS can be installed where these tests run."""

import json
import subprocess

import pytest
from job_cases import script_job

from nemo_airflow import PBSExecutor
from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors.pbs.scheduler import PBS
from nemo_airflow.job import FailureKind, JobState


def read(**job):
    answer = {"timestamp": 1, "pbs_version": "23.06", "Jobs": {"7.head": {"Job_Name": "nemo-a-job", **job}}}
    return PBS().parse_queue(json.dumps(answer, indent=4))["7.head"]


@pytest.mark.parametrize(
    ("job", "state", "failure", "code"),
    [
        ({"job_state": "Q"}, JobState.PENDING, None, None),
        ({"job_state": "H", "Hold_Types": "u"}, JobState.PENDING, None, None),
        ({"job_state": "R"}, JobState.RUNNING, None, None),
        ({"job_state": "E"}, JobState.RUNNING, None, None),
        ({"job_state": "S"}, JobState.RUNNING, None, None),
        ({"job_state": "F", "Exit_status": 0, "substate": 92}, JobState.SUCCEEDED, None, 0),
        ({"job_state": "F", "Exit_status": 7, "substate": 93}, JobState.FAILED, FailureKind.USER_ERROR, 7),
        ({"job_state": "F", "Exit_status": 271, "substate": 93}, JobState.FAILED, FailureKind.USER_ERROR, 143),
        ({"job_state": "F", "Exit_status": -29, "substate": 93}, JobState.FAILED, FailureKind.TIMEOUT, None),
        ({"job_state": "F", "Exit_status": -27, "substate": 93}, JobState.FAILED, FailureKind.OUT_OF_MEMORY, None),
        ({"job_state": "F", "Exit_status": -3, "substate": 93}, JobState.FAILED, FailureKind.NODE_FAILURE, None),
        ({"job_state": "F", "Exit_status": 271, "substate": 91}, JobState.CANCELLED, FailureKind.CANCELLED, None),
        ({"job_state": "F", "Exit_status": -11}, JobState.PENDING, None, None),
        ({"job_state": "F"}, JobState.LOST, FailureKind.LOST, None),
    ],
)
def test_words_of_a_job_are_read(job, state, failure, code):
    status = read(**job).fact.status
    assert (status.state, status.failure, status.exit_code) == (state, failure, code)


def test_state_that_this_release_does_not_know_is_none():
    assert (read(job_state="Y").fact, read(job_state="Y").word) == (None, "Y")


def test_job_that_the_server_holds_after_failed_starts_is_stuck():
    fact = read(job_state="H", Hold_Types="s", comment="job held, too many failed attempts to run").fact
    assert (fact.stuck, fact.held) == (FailureKind.NODE_FAILURE, True)
    assert "too many failed attempts" in fact.status.reason


def test_job_that_ran_before_and_is_queued_may_be_started_again():
    assert read(job_state="Q", run_count=1).fact.may_restart
    assert not read(job_state="Q").fact.may_restart


BROKEN = """{
    "timestamp":1,
    "Jobs":{
        "7.head":{
            "Job_Name":"nemo-a-job",
            "job_state":"R",
            "Variable_List":{
                "PBS_O_HOME":"/home/a",
                "NUMBER":0012,
                "QUOTED":"a "quoted" word"
            },
            "run_count":1
        }
    }
}
"""


def test_answer_that_values_of_the_environment_break_is_read_without_them():
    assert PBS().parse_queue(BROKEN)["7.head"].fact.status.state is JobState.RUNNING


def test_answer_that_is_cut_off_is_no_answer():
    with pytest.raises(ValueError, match="line"):
        PBS().parse_queue(BROKEN[:150])


def test_empty_queue_has_no_jobs():
    assert PBS().parse_queue("") == {}


def test_script_is_what_a_person_would_write():
    executor = PBSExecutor(
        queue="gpu", ncpus=8, gpus_per_node=2, mem="16gb", select={"host": "n7"}, resources={"place": "excl"},
        time="01:00:00", project="ml", dependencies=["12.head"], additional_parameters={"m": "abe"},
    )  # fmt: skip
    text = executor.render(script_job("true")).files["start.sh"]
    for line in (
        "-l select=1:ncpus=8:ngpus=2:mem=16gb:host=n7", "-l walltime=3690", "-l place=excl", "-q gpu", "-P ml",
        "-W depend=afterok:12.head", "-m abe",
    ):  # fmt: skip
        assert f"#PBS {line}\n" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"additional_parameters": {"o": "elsewhere"}},
        {"additional_parameters": {"-J": "1-3"}},
        {"queue": "a b"},
        {"job_name_prefix": "1-"},
        {"mem": "1gb\n#PBS -o elsewhere"},
    ],
)
def test_what_qsub_could_not_take_or_would_undo_following_is_refused(fields):
    with pytest.raises(ExecutorArgumentError, match="PBSExecutor"):
        PBSExecutor(**fields).render(script_job("true"))
