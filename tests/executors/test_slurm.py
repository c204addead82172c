"""What only Slurm does, on the lab's real cluster; and the job script, which needs none."""

import dataclasses
import subprocess
import uuid
from pathlib import Path

import pytest
from job_cases import follow, run, script_job, start, submit, wait_for_end, wait_for_output, wait_until
from lab.connections import ssh_connection

from nemo_airflow import blocking
from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, SettingsError, SubmitError
from nemo_airflow.executors import Processes, SlurmExecutor, SSHExecutor, executor_from_json
from nemo_airflow.executors.base import Cursor
from nemo_airflow.executors.batch.driver import BatchDriver
from nemo_airflow.executors.slurm.scheduler import Slurm
from nemo_airflow.job import FailureKind, Job, JobHandle, JobState
from nemo_airflow.testing.services import service_of


@pytest.fixture
def executor(ssh_conn_id, lab_slurm):
    return SlurmExecutor(ssh_conn_id=ssh_conn_id, root="~/slurm tests", grace=2)


# The script


def test_script_is_what_a_person_would_write():
    executor = SlurmExecutor(
        account="ml", partition="gpu", nodes=2, ntasks_per_node=4, gpus_per_node=4, mem="16G", exclusive=True,
        comment="it's mine; $(rm -rf /)", time="01:00:00", setup_lines="module load cuda",
        additional_parameters={"mail-type": "END", "contiguous": True},
    )  # fmt: skip
    text = executor.render(script_job("true")).files["start.sh"]
    assert "#SBATCH --account=ml\n#SBATCH --partition=gpu\n" in text
    assert "#SBATCH --time=62\n" in text
    assert "#SBATCH --exclusive\n" in text
    assert "#SBATCH --mail-type=END\n#SBATCH --contiguous\n" in text
    assert '#SBATCH --comment="it\'s mine; $(rm -rf /)"\n' in text
    assert text.endswith('__main__.py "$PWD"\n')
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("comment", "two\nlines"),
        ("dependency_type", "whenever"),
        ("dependencies", ["1; rm"]),
        ("container_runtime", "podman"),
        ("heterogeneous", [{"nods": 2}]),
        ("array", "0-3%"),
        ("array", "3-1"),
        ("additional_parameters", {"array": "0-3"}),
    ],
)
def test_what_sbatch_could_not_take_is_refused(field, value):
    with pytest.raises(ExecutorError, match="nods" if field == "heterogeneous" else "[a-z_]+"):
        SlurmExecutor(**{"container_image": "an/image", field: value}).render(script_job("true"))


def test_name_that_a_shell_would_run_is_looked_up_as_it_is(executor):
    executor = dataclasses.replace(executor, job_name_prefix="it's $(touch pwned) `touch pwned`; ")
    job = script_job("sleep 600")
    driver, handle = start(executor, job)
    # As when the answer of sbatch was lost: only by its name is the job found again.
    folder = f"'slurm tests'/jobs/{job.key}"
    assert blocking.run(driver.shell.run(f"rm {folder}/jobid")).code == 0
    assert blocking.run(driver.submit(executor.render(job))).id == handle.id
    blocking.run(driver.cancel([handle]))
    assert follow(executor, handle)[0].status.state is JobState.CANCELLED
    assert blocking.run(driver.shell.run(f"ls pwned {folder}/pwned")).code != 0


def test_task_of_an_array_is_one_process():
    with pytest.raises(ExecutorError, match="each task of an array is one process"):
        SlurmExecutor(array="0-3", nodes=2).render(script_job("true"))


def test_script_of_an_array_has_the_resources_and_the_jobs_own_has_none():
    executor = SlurmExecutor(
        array="0-6:2%2", account="ml", mem="16G", container_image="an/image", additional_parameters={"hint": "x"}
    )
    request = executor.render(script_job("true"))
    for name, options in {"array.sh": 4, "start.sh": 1}.items():
        wanted = ("--account=ml", "--mem=16G", "--hint=x", "--array=0-6:2%2")
        assert sum(f"#SBATCH {option}\n" in request.files[name] for option in wanted) == options
        assert subprocess.run(["bash", "-n"], input=request.files[name], text=True).returncode == 0
    command = request.files["array.sh"].splitlines()[-1]
    assert '--container-mounts="$PWD"/../..:"$PWD"/../..' in command
    assert command.endswith('__main__.py --rank "$PWD"')


def test_containers_run_under_srun():
    pyxis = SlurmExecutor(container_image="nvcr.io#pytorch", container_mounts=["/data:/data"], ntasks_per_node=2)
    launch = " ".join(pyxis.launch())
    assert launch.startswith("srun --kill-on-bad-exit=1")
    assert "--container-image=nvcr.io#pytorch --container-mounts={folder}/../..:{folder}/../..,/data:/data" in launch
    apptainer = dataclasses.replace(pyxis, container_runtime="apptainer", gpus_per_node=1)
    assert "apptainer exec --nv --bind {folder}/../..:{folder}/../.. --bind /data:/data" in " ".join(apptainer.launch())


@pytest.mark.parametrize(
    ("state", "reason", "kind"),
    [
        ("PENDING", "launch failed requeued held", FailureKind.NODE_FAILURE),
        ("PENDING", "launch_failed_requeued_held", FailureKind.NODE_FAILURE),  # as scontrol writes it
        ("PENDING", "JobHoldMaxRequeue", FailureKind.NODE_FAILURE),
        ("PENDING", "DependencyNeverSatisfied", FailureKind.QUOTA),
        ("PENDING", "JobHeldUser", None),  # somebody wants it so
        ("PENDING", "JobHeldAdmin", None),
        ("PENDING", "Resources", None),
        ("RUNNING", "None", None),
    ],
)
def test_only_what_slurm_will_not_start_by_itself_is_hopeless(state, reason, kind):
    (entry,) = Slurm().parse_queue(f"7|{state}|{reason}|N/A|a-job\n").values()
    assert entry.fact.stuck == kind
    assert entry.fact.held == (kind is FailureKind.NODE_FAILURE)


def test_accounting_that_calls_a_job_running_is_a_sign_of_life():
    found = Slurm().parse_history("7|RUNNING|0:0|a-job\n8|CANCELLED by 1000|0:0|a-job\n")
    assert [found[number].fact.status.state for number in "78"] == [JobState.RUNNING, JobState.CANCELLED]


def test_job_that_accounting_calls_cancelled_by_nobody_is_lost():
    found = Slurm().parse_history("8|CANCELLED|0:0|a-job\n9|CANCELLED by 0|0:0|a-job\n")
    assert [found[number].fact.status.state for number in "89"] == [JobState.LOST, JobState.CANCELLED]


def test_executor_comes_back_from_json():
    executor = SlurmExecutor(launcher=Processes(nproc_per_node=2), dependencies=["12"], requeue=False)
    again = executor_from_json(executor.to_json())
    assert again.launcher == executor.launcher
    assert again.render(job := script_job("true")) == executor.render(job)


# On the cluster


def test_options_reach_slurm_unchanged(executor):
    comment = 'it\'s "mine"; $(id) `id` \\ \u00fc'
    executor = dataclasses.replace(executor, comment=comment, job_name_prefix="lab.", cpus_per_task=2)
    outcome, lines, _ = run(executor, "scontrol show job $SLURM_JOB_ID; echo cpus $SLURM_CPUS_PER_TASK")
    assert outcome.succeeded
    assert any(line.strip() == f"Comment={comment}" for line in lines), lines
    assert "cpus 2" in lines


SAVING = """
import signal, sys, time
def save(number, frame):
    print("saved")
    sys.exit(0)
signal.signal(signal.SIGUSR1, save)
print("waiting")
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("signal", "fields", "rendered"),
    [
        ("USR1@300", {}, "B:USR1@300"),
        ("B:USR1@300", {}, "B:USR1@300"),
        ("R:USR1@300", {}, "R:USR1@300"),
        ("USR1@300", {"nodes": 2}, "USR1@300"),
        ("USR1@300", {"container_image": "an/image"}, "USR1@300"),
    ],
)
def test_warning_of_a_job_without_a_step_is_sent_to_the_runner(signal, fields, rendered):
    text = SlurmExecutor(signal=signal, **fields).render(script_job("true")).files["start.sh"]
    assert f"#SBATCH --signal={rendered}\n" in text


def test_warning_before_the_time_limit_reaches_the_job_and_its_handler_ends_it(executor):
    # The job has 4 minutes of Slurm's. It looks each half minute, and warns up to half a minute early.
    executor = dataclasses.replace(executor, time="2", signal="USR1@180")
    handle = submit(executor, script_job(f"python3 - <<'END'\n{SAVING}END\n"))
    outcome, lines, _ = follow(executor, handle, seconds=200)
    assert outcome.succeeded, outcome
    assert lines == ["waiting", "saved"]


def test_lines_of_several_processes_are_not_torn(executor):
    executor = dataclasses.replace(executor, nodes=2, ntasks_per_node=2)
    text = "for i in $(seq 500); do printf '<%s %03d %0*d>\\n' $RANK $i $((i % 300 + 1)) 0; done"
    outcome, lines, _ = run(executor, text)
    assert outcome.succeeded, outcome.message
    expected = [f"{rank}: <{rank} {i:03} {'0' * (i % 300 + 1)}>" for rank in range(4) for i in range(1, 501)]
    assert sorted(lines) == sorted(expected)


def test_processes_of_several_nodes_run_together(executor):
    executor = dataclasses.replace(executor, nodes=2, ntasks_per_node=2)
    outcome, lines, _ = run(executor, "echo rank $RANK of $WORLD_SIZE at $MASTER_ADDR on $SLURMD_NODENAME")
    assert outcome.succeeded, outcome
    assert sorted(line.split(": ")[1].split(" at ")[0] for line in lines) == [f"rank {n} of 4" for n in range(4)]
    assert len({line.rpartition(" ")[2] for line in lines}) == 2


def test_samples_of_all_nodes_are_on_the_jobs_stream(executor):
    executor = dataclasses.replace(executor, nodes=2)
    driver, handle = start(executor, script_job("sleep 600", sample_interval=0.5))
    for node in range(2):
        wait_for_output(driver, handle, b'"node":%d,"values":{"' % node)
    blocking.run(driver.cancel([handle]))
    assert wait_for_end(driver, handle).state is JobState.CANCELLED


REPORTING = "python3 -m nemo_airflow.runner.report metric loss 0.5 --step 7"


def test_points_of_all_nodes_are_on_the_jobs_stream(executor):
    driver, handle = start(dataclasses.replace(executor, nodes=2), script_job(REPORTING))
    for name in (b"loss", b"node_1/loss"):
        wait_for_output(driver, handle, b'["%s",0.5,7,' % name)


def test_points_of_the_tasks_of_an_array_are_on_the_jobs_stream(executor):
    driver, handle = start(dataclasses.replace(executor, array="0-1"), script_job(REPORTING))
    for task in range(2):
        wait_for_output(driver, handle, b'["task_%d/loss",0.5,7,' % task)


def test_failure_of_one_process_is_the_jobs_with_its_rank(executor):
    executor = dataclasses.replace(executor, ntasks_per_node=3)
    outcome, _, _ = run(executor, "[ $RANK != 1 ] || exit 7; sleep 60")
    assert outcome.status.state is JobState.FAILED
    assert "rank 1" in outcome.message


def test_heterogeneous_job_runs_in_all_its_groups(executor):
    executor = dataclasses.replace(executor, heterogeneous=[{"nodes": 1, "cpus_per_task": 2}])
    outcome, lines, _ = run(executor, "echo group $SLURM_HET_GROUP_ID$SLURM_PROCID")
    assert outcome.succeeded, outcome
    assert len(lines) == 2


def array_lines(lines):
    return sorted(line for line in lines if line.startswith("["))


def test_array_runs_the_config_once_a_task_and_gives_all_results(executor, lab_ssh, tmp_path, monkeypatch):
    executor = dataclasses.replace(executor, array="1,4-8:2%2")
    root = {"_target_": "os:getenv", "_args_": ["SLURM_ARRAY_TASK_ID"]}
    job = Job(key=f"s{uuid.uuid4().hex[:20]}", name="array", plan={"version": 1, "root": root}, allow=("os.",))
    handle = submit(executor, job)
    outcome, _, _ = follow(executor, handle)
    assert outcome.succeeded, outcome
    assert outcome.result == ["1", "4", "6", "8"]


def test_failure_of_a_task_of_an_array_is_the_jobs_and_the_others_go_on(executor):
    text = "echo task $SLURM_ARRAY_TASK_ID; [ $SLURM_ARRAY_TASK_ID != 1 ] || exit 7; sleep 2; printf done"
    outcome, lines, _ = run(dataclasses.replace(executor, array="0-2"), text)
    assert outcome.status.state is JobState.FAILED
    assert "array task 1 on" in outcome.message
    assert [line for line in array_lines(lines) if "exit code" not in line] == [
        "[0] done", "[0] task 0", "[1] task 1", "[2] done", "[2] task 2",
    ]  # fmt: skip


def test_array_that_slurm_refuses_and_a_task_that_was_killed_fail_the_job(executor):
    outcome, _, _ = run(dataclasses.replace(executor, array="0-2", mem="900T"), "true")
    assert "Slurm refused the array" in outcome.message
    outcome, _, _ = run(dataclasses.replace(executor, array="0-1"), "[ $SLURM_ARRAY_TASK_ID = 0 ] || kill -9 $PPID")
    assert "array tasks 1 ended without a result" in outcome.message


def test_array_is_cancelled_with_its_job(executor, lab_ssh):
    driver, handle = start(dataclasses.replace(executor, array="0-7%1"), script_job("echo begun; sleep 300"))
    wait_until(lambda: b"begun" in b"".join(c.data for c in blocking.run(driver.read([Cursor(handle)]))), "a task")
    blocking.run(driver.cancel([handle]))
    assert follow(executor, handle)[0].status.state is JobState.CANCELLED
    wait_until(lambda: handle.key not in lab_ssh.run("squeue -h -o %j"), "the array to end")


def test_array_goes_on_when_the_job_around_it_is_started_again(executor, lab_ssh):
    gate = Path(f"/tmp/nemo-gate-{uuid.uuid4().hex}")  # the lab's nodes see it as well
    text = f"echo first; until [ -e {gate} ]; do sleep 0.2; done; echo second"
    driver, handle = start(dataclasses.replace(executor, array="0-1"), script_job(text))

    def stream():
        return b"".join(chunk.data for chunk in blocking.run(driver.read([Cursor(handle)])))

    wait_until(lambda: b"[1] first" in stream(), "a task")
    lab_ssh.run(f"scontrol requeue {handle.id}")
    wait_until(lambda: stream().count(b'"type":"start"') == 2, "the job to start again", seconds=120)
    gate.touch()
    outcome, lines, _ = follow(executor, handle)
    assert outcome.succeeded, outcome
    assert array_lines(lines) == ["[0] first", "[0] second", "[1] first", "[1] second"]
    gate.unlink()


def test_preempted_job_is_started_again_and_its_log_goes_on(executor):
    executor = dataclasses.replace(executor, nodelist="n4", exclusive=True)
    text = "echo begun >>marker; cat marker; echo ---; [ $(wc -l <marker) -gt 1 ] || sleep 300"
    driver, handle = start(executor, script_job(text))
    wait_until(lambda: status(driver, handle).state is JobState.RUNNING, "the job to run")
    urgent, _, _ = run(dataclasses.replace(executor, partition="urgent"), "sleep 1")
    assert urgent.succeeded
    outcome, lines, _ = follow(executor, handle, seconds=300)
    assert outcome.succeeded, outcome
    own = [line for line in lines if not line.startswith("slurmstepd")]
    assert own == ["begun", "---", "begun", "begun", "---"]


def test_preempted_job_that_may_not_be_started_again_says_so(executor):
    executor = dataclasses.replace(executor, nodelist="n4", exclusive=True, requeue=False)
    driver, handle = start(executor, script_job("sleep 300"))
    wait_until(lambda: status(driver, handle).state is JobState.RUNNING, "the job to run")
    run(dataclasses.replace(executor, partition="urgent"), "sleep 1")
    outcome, _, _ = follow(executor, handle)
    assert outcome.status.failure is FailureKind.PREEMPTED, outcome


def test_runner_that_was_killed_is_seen_without_an_end_mark(executor, lab_ssh):
    # Of a line that the killed runner had not passed on nobody knows: it is in the job's log first.
    until_written = 'until grep -q begun "$NEMO_AIRFLOW_OUTPUT_DIR/../log"; do sleep 0.1; done'
    script = f"echo begun; {until_written}; kill -9 $(ps -o ppid= -p $PPID); sleep 60"
    _session, handle = start(executor, script_job(script))
    outcome, lines, _ = follow(executor, handle)
    assert outcome.status.state is JobState.FAILED
    assert lines == ["begun"]


def test_job_that_waits_says_why_and_can_be_cancelled(executor, lab_ssh):
    executor = dataclasses.replace(executor, additional_parameters={"begin": "now+1hour"})
    driver, handle = start(executor, script_job("true"))
    assert "BeginTime" in status(driver, handle).reason
    blocking.run(driver.cancel([handle]))
    outcome, _, _said = follow(executor, handle)
    assert outcome.status.state is JobState.CANCELLED


def test_job_that_is_cancelled_before_its_runner_has_begun_is_cancelled(executor):
    """A SIGTERM that comes while a module is loaded, or Python starts, leaves no end mark."""
    executor = dataclasses.replace(executor, setup_lines="sleep 300")
    driver, handle = start(executor, script_job("true"))
    wait_until(lambda: status(driver, handle).state is JobState.RUNNING, "the job to run")
    blocking.run(driver.cancel([handle]))
    outcome, _, _ = follow(executor, handle)
    assert outcome.status.state is JobState.CANCELLED, outcome


def test_more_nodes_than_there_are_is_a_quota_failure(executor):
    outcome, _, _ = run(dataclasses.replace(executor, nodes=40), "true")
    assert outcome.status.failure is FailureKind.QUOTA
    assert "PartitionConfig" in outcome.message


def test_job_that_would_wait_for_ever_is_given_up(executor, lab_ssh):
    outcome, _, _ = run(executor, "exit 1")
    _, failed = start(executor, script_job("exit 1"))
    follow(executor, failed)
    later = dataclasses.replace(executor, dependencies=[failed.id])
    _session, handle = start(later, script_job("true"))
    outcome, _, _said = follow(later, handle)
    assert outcome.status.state is JobState.FAILED
    assert "DependencyNeverSatisfied" in outcome.message
    assert handle.id not in lab_ssh.run("squeue -h -o %A").split()


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"partition": "nowhere"}, FailureKind.USER_ERROR, "nvalid partition"),
        ({"account": "nobodys"}, FailureKind.USER_ERROR, "nvalid account"),
        ({"mem": "900T"}, FailureKind.QUOTA, "configuration is not available"),
        ({"additional_parameters": {"no-such-option": True}}, FailureKind.USER_ERROR, "no-such-option"),
    ],
)
def test_refusal_is_slurms_own_and_leaves_nothing(executor, lab_ssh, fields, kind, words):
    executor = dataclasses.replace(executor, **fields)
    job = script_job("true")
    with pytest.raises(SubmitError, match=words) as refused:
        start(executor, job)
    assert refused.value.kind == kind
    assert "\n" not in str(refused.value)
    assert job.key not in lab_ssh.run("ls 'slurm tests/jobs'; squeue -h -o %j")


@pytest.mark.parametrize("kind", [SlurmExecutor, SSHExecutor])
def test_full_disk_is_named_and_leaves_nothing(ssh_conn_id, lab_ssh, kind):
    disk = lab_ssh.run("echo $SMALL_DISK").strip()
    assert disk, "the login has no $SMALL_DISK, see docs/lab.md"
    job = script_job("true")
    with pytest.raises(SubmitError, match="No space left") as refused:
        start(kind(ssh_conn_id=ssh_conn_id, root=disk), job)
    assert refused.value.kind is FailureKind.QUOTA
    assert "\n" not in str(refused.value)
    assert lab_ssh.run(f"ls {disk}/jobs {disk}/runner").split() == [f"{disk}/jobs:", f"{disk}/runner:"]
    assert job.key not in lab_ssh.run("squeue -h -o %j")


def test_answer_of_sbatch_that_was_lost_starts_no_second_job(executor, lab_ssh):
    job = script_job("echo once; sleep 3")
    request = executor.render(job)
    driver = executor.connect()
    blocking.run(driver._lay_out(request))
    # As a submit leaves it that was cut off between sbatch and its answer.
    first = lab_ssh.run(f"cd 'slurm tests/jobs/{job.key}' && mkdir submitting && sbatch --parsable start.sh").strip()
    handle = blocking.run(driver.submit(request))
    assert handle.id == first
    outcome, lines, _ = follow(executor, handle)
    assert outcome.succeeded
    assert lines == ["once"]


def test_second_job_of_one_key_finds_the_work_taken(executor, lab_ssh):
    job = script_job("echo once; sleep 1")
    handle = submit(executor, job)
    second = lab_ssh.run(f"cd 'slurm tests/jobs/{job.key}' && sbatch --parsable start.sh").strip()
    outcome, lines, _ = follow(executor, handle)
    assert outcome.succeeded
    wait_until(lambda: second not in lab_ssh.run("squeue -h -o %A").split(), "the second job to end")
    assert follow(executor, handle)[1] == lines == ["once"]


def test_job_that_is_done_does_not_run_again_when_slurm_queues_it_again(executor, lab_ssh):
    driver, handle = start(executor, script_job("echo once >>'../../../ran'; echo done"))
    job = f"cd 'slurm tests/jobs/{handle.key}'"
    wait_until(lambda: "yes" in lab_ssh.run(f"{job} && [ ! -s end.json ] || echo yes"), "the end mark")
    wait_until(lambda: "COMPLETED" in lab_ssh.run(f"squeue -h -t all -j {handle.id} -o %T"), "Slurm to know")
    lab_ssh.run(f"scontrol requeue {handle.id}")
    assert "PENDING" in lab_ssh.run(f"squeue -h -t all -j {handle.id} -o %T")
    assert status(driver, handle).state is JobState.SUCCEEDED
    assert "PENDING" not in lab_ssh.run(f"squeue -h -t all -j {handle.id} -o %T")
    assert follow(executor, handle)[1] == ["done"]


def test_recycled_id_and_another_cluster_are_not_the_job(executor):
    driver, handle = start(executor, script_job("sleep 30"))
    assert status(driver, dataclasses.replace(handle, key="another")).state is JobState.UNKNOWN
    assert status(driver, dataclasses.replace(handle, cluster="elsewhere")).state is JobState.UNKNOWN
    blocking.run(driver.cancel([handle]))
    follow(executor, handle)


def test_accounting_is_asked_only_for_what_the_queue_has_forgotten(executor):
    """A job of another name under the same id, and one that only the accounting knows."""
    driver, handle = start(executor, script_job("kill -9 $(ps -o ppid= -p $PPID); sleep 9"))
    _outcome, _, _ = follow(executor, handle)
    fresh = ForgetfulDriver(Slurm(), driver._cluster, driver._root)
    found = []
    wait_until(lambda: found.append(status(fresh, handle)) or found[-1].state.is_final, "sacct to know")
    assert found[-1].state is JobState.FAILED


class ForgetfulDriver(BatchDriver):
    """Sees a queue that has forgotten all jobs, as after ``MinJobAge``."""

    async def _ask_queue(self):
        await super()._ask_queue()
        self._queue = {}


# The connection


def status(driver, handle):
    return blocking.run(service_of(driver).status([handle]))[handle.key]


def find_with(conn_id):
    return blocking.run(SSHExecutor(ssh_conn_id=conn_id).connect().find(["nobody"]), 300)


def test_connection_that_is_not_there_is_named():
    with pytest.raises(SettingsError, match="no_such_cluster"):
        find_with("no_such_cluster")


def test_changed_host_key_is_refused(lab_ssh, monkeypatch, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    other = (tmp_path / "other.pub").read_text()
    monkeypatch.setenv("AIRFLOW_CONN_CHANGED", ssh_connection(lab_ssh, host_key=other))
    with pytest.raises(ExecutorError, match="host key of hpc@127"):
        find_with("changed")


def test_unknown_host_is_refused_unless_told_otherwise(lab_ssh, monkeypatch, tmp_path):
    monkeypatch.setenv(
        "AIRFLOW_CONN_UNKNOWN", ssh_connection(lab_ssh, host_key=None, known_hosts=str(tmp_path / "none"))
    )
    (tmp_path / "none").touch()
    with pytest.raises(ExecutorError, match="host key"):
        find_with("unknown")
    monkeypatch.setenv("AIRFLOW_CONN_UNKNOWN", ssh_connection(lab_ssh, host_key=None, no_host_key_check=True))
    assert find_with("unknown") == {}


def test_wrong_key_is_refused(lab_ssh, monkeypatch, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "mine")], check=True)
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", ssh_connection(lab_ssh, key_file=str(tmp_path / "mine")))
    with pytest.raises(ExecutorError, match="refused the login"):
        find_with("wrong")


def test_key_file_that_is_not_there_is_named(lab_ssh, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_NOKEY", ssh_connection(lab_ssh, key_file="/nowhere/key"))
    with pytest.raises(SettingsError, match="/nowhere/key"):
        find_with("nokey")


def test_host_behind_another_is_reached_through_it(lab_ssh, ssh_conn_id, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_BEHIND", ssh_connection(lab_ssh, jump_conn_id=ssh_conn_id))
    assert find_with("behind") == {}


def test_nobody_at_the_port_is_unavailable(lab_ssh, monkeypatch):
    closed = dataclasses.replace(lab_ssh, port=9)
    monkeypatch.setenv("AIRFLOW_CONN_CLOSED", ssh_connection(closed))
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9"):
        find_with("closed")


def test_job_of_nobody_is_unknown(executor):
    assert status(executor.connect(), JobHandle("nobody", "slurm", "1", executor.ssh_conn_id)).state is JobState.UNKNOWN
