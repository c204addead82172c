"""Launchers: plain processes here, and a PyTorch training on several nodes of the lab's cluster."""

import dataclasses
import inspect
import os
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from job_cases import script_job

from nemo_airflow import blocking, settings
from nemo_airflow.config import Config
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import ExecutorArgumentError, ExecutorError
from nemo_airflow.executors import (
    MPI,
    DockerExecutor,
    FaultTolerance,
    GridEngineExecutor,
    KubernetesExecutor,
    LocalExecutor,
    PBSExecutor,
    Processes,
    RayExecutor,
    ScriptTemplate,
    SkypilotExecutor,
    SlurmExecutor,
    Torchrun,
    executor_from_json,
)
from nemo_airflow.executors.registry import launcher_from_json
from nemo_airflow.follow import Follower
from nemo_airflow.job import FailureKind, Job, JobState
from nemo_airflow.packaging.archive import write_archive
from nemo_airflow.store import PackageStore

DAGS = Path(__file__).parents[2] / "dags"


def run(executor, job, timeout=300):
    lines, records = [], []

    class Sink:
        def record(self, record):
            records.append(record)

        async def finish(self, status, log, error):
            return True

        async def close(self):
            pass

    handle = blocking.run(executor.connect().submit(executor.render(job)))
    follower = Follower(executor, handle, on_line=lambda line: lines.append(line.text), warn=print, sink=Sink())
    outcome = blocking.run(follower.run(), timeout)
    with tempfile.TemporaryDirectory() as folder:
        blocking.run(executor.connect().collect(handle, Path(folder)), timeout)
        outputs = sorted(path.name for path in Path(folder).iterdir())
    return outcome, lines, records, outputs


@pytest.fixture
def local(tmp_path):
    return lambda launcher: LocalExecutor(root=str(tmp_path), launcher=launcher, grace=2)


def test_plain_processes_know_their_rank(local):
    outcome, lines, _, _ = run(local(Processes(nproc_per_node=3)), script_job("echo I am $RANK of $WORLD_SIZE"))
    assert outcome.succeeded
    assert sorted(lines) == [f"[{rank}] I am {rank} of 3" for rank in range(3)]


def test_result_is_that_of_the_first_process(local):
    root = {"_target_": "os:getenv", "_args_": ["RANK"]}
    job = Job(key="first", name="first", plan={"version": 1, "root": root}, allow=("os:getenv",))
    outcome, _, _, _ = run(local(Processes(nproc_per_node=2)), job)
    assert outcome.result == "0"


def test_process_that_fails_ends_the_others_and_names_itself(local):
    outcome, _, _, _ = run(local(Processes(nproc_per_node=3)), script_job("[ $RANK = 1 ] && exit 9; sleep 600"))
    assert outcome.status.state is JobState.FAILED
    assert outcome.status.failure is FailureKind.USER_ERROR
    assert "rank 1" in outcome.message
    assert "exit code 9" in outcome.message


def test_process_that_ends_well_leaves_the_others(local):
    outcome, lines, _, _ = run(
        local(Processes(nproc_per_node=2)), script_job("[ $RANK = 0 ] || { sleep 1; echo late; }")
    )
    assert outcome.succeeded
    assert lines == ["[1] late"]


def test_template_starts_the_processes(local):
    launcher = ScriptTemplate(text="echo {{ greeting }}\nRANK=0 {{ command }}", variables={"greeting": "hello"})
    outcome, lines, _, _ = run(local(launcher), script_job("echo job"))
    assert outcome.succeeded
    assert lines == ["hello", "job"]


def test_braces_of_a_templates_shell_are_its_own(local):
    text = """
nodes=7; port=29500
echo "${nodes} ${port} {key} {brace}port}"
for python in a b; do echo ${python}; done
{{ command }}
"""
    outcome, lines, _, _ = run(local(ScriptTemplate(text=text)), script_job("echo job"))
    assert outcome.succeeded
    assert lines == ["7 29500 {key} {brace}port}", "a", "b", "job"]


def test_template_knows_where_its_processes_meet(local):
    text = "echo $MASTER_ADDR $NNODES $NODE_RANK; [ $MASTER_PORT -gt 0 ] && {{ command }}"
    outcome, lines, _, _ = run(local(ScriptTemplate(text=text)), script_job("echo job"))
    assert outcome.succeeded
    assert lines == ["127.0.0.1 1 0", "job"]


@pytest.mark.parametrize(
    ("executor", "processes"),
    [
        (SlurmExecutor(nodes=64, gpus_per_node=8, launcher=Torchrun()), 8),
        (SlurmExecutor(gpus_per_node="a100:4", launcher=Processes()), 4),
        (SlurmExecutor(gres="gpu:a100:4,shard:2", launcher=Processes()), 4),
        (SlurmExecutor(gres="shard:2", launcher=Processes()), 1),
        (SlurmExecutor(ntasks_per_node=2, gpus_per_node=8, launcher=Torchrun()), 2),
        (SlurmExecutor(gpus_per_node=8, launcher=Torchrun(nproc_per_node=3)), 3),
        (SlurmExecutor(launcher=Torchrun()), 1),
        (KubernetesExecutor(container_image="i", gpus=8, launcher=Torchrun()), 8),
        (KubernetesExecutor(container_image="i", launcher=Processes()), 1),
        (DockerExecutor(container_image="i", num_gpus=2, launcher=Torchrun()), 2),
        (DockerExecutor(container_image="i", gpu_ids=["0", "3", "4"], launcher=Processes()), 3),
        (DockerExecutor(container_image="i", num_gpus=2, ntasks_per_node=5, launcher=Processes()), 5),
        (DockerExecutor(container_image="i", num_gpus=-1, launcher=Torchrun(nproc_per_node=4)), 4),
        (SkypilotExecutor(gpus="H100", gpus_per_node=8, launcher=Torchrun()), 8),
        (SkypilotExecutor(accelerators="A100:4", launcher=Processes()), 4),
        (SkypilotExecutor(accelerators={"A100": 4}, launcher=Processes()), 4),
        (SkypilotExecutor(gpus="H100", launcher=Torchrun()), 1),
        (RayExecutor(entrypoint_num_gpus=4, launcher=Torchrun()), 4),
        (LocalExecutor(launcher=Processes()), 1),
        (LocalExecutor(gpus_per_node=2, launcher=Processes()), 2),
        (LocalExecutor(ntasks_per_node=3), 3),
        (GridEngineExecutor(pe="smp", slots=4, launcher=Processes()), 4),
        (GridEngineExecutor(gpus_per_node=2, launcher=Processes()), 2),
        (PBSExecutor(gpus_per_node=2, launcher=FaultTolerance()), 2),
    ],
)
def test_launcher_starts_a_process_for_each_gpu_unless_told_how_many(executor, processes):
    command = " ".join(executor.launch())
    assert f"--nproc-per-node={processes} " in command or f"--spawn {processes} " in command, command


@pytest.mark.parametrize("executor", [SlurmExecutor(gpus_per_node=8), DockerExecutor(container_image="i", num_gpus=2)])
def test_job_without_a_launcher_is_one_process_whatever_gpus_it_has(executor):
    assert executor.launch() == ()


def test_all_gpus_of_an_unknown_machine_do_not_say_how_many_processes():
    with pytest.raises(ExecutorError, match=r"gpus_per_node=-1 .* ntasks_per_node"):
        DockerExecutor(container_image="i", num_gpus=-1, launcher=Torchrun()).launch()


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"gpus_per_node": 8, "launcher": Torchrun()}, ("--ntasks-per-node=1", "--cpus-per-task=8")),
        ({"gres": "gpu:8", "cpus_per_task": 6, "launcher": Processes()}, ("--ntasks-per-node=1", "--cpus-per-task=48")),
        ({"cpus_per_task": 2, "launcher": Processes(nproc_per_node=3)}, ("--ntasks-per-node=1", "--cpus-per-task=6")),
        ({"ntasks_per_node": 8, "gpus_per_node": 8}, ("--ntasks-per-node=8",)),
        ({"gpus_per_node": 8}, ("--ntasks-per-node=1",)),
    ],
)  # fmt: skip
def test_slurm_gives_one_task_a_node_the_processors_of_all_its_processes(fields, options):
    executor = SlurmExecutor(nodes=2, **fields)
    for option in options:
        assert f"#SBATCH {option}\n" in executor.render(script_job("true")).files["start.sh"]
    launched = fields.get("launcher") is not None
    step = " ".join(executor.launch())
    assert ("--ntasks=2 --ntasks-per-node=1 " in step) == (launched or "ntasks_per_node" not in fields)


def test_template_with_an_unknown_variable_is_refused(local):
    with pytest.raises(ExecutorArgumentError, match="nobody"):  # the author's fault: another try is in vain
        local(ScriptTemplate(text="{{ nobody }}")).render(script_job("true"))


def test_launcher_that_is_not_installed_is_named(local):
    outcome, lines, _, _ = run(local(ScriptTemplate(text="x", shell="no-such-shell")), script_job("true"))
    assert outcome.status.exit_code == 127
    assert any("no-such-shell" in line for line in lines)


@pytest.mark.parametrize(
    "launcher",
    [
        Torchrun(nproc_per_node=2, args=["--tee=3"]), Processes(nsys_profile=True), ScriptTemplate(text="x"),
        FaultTolerance(rank_heartbeat_timeout=60, nsys_profile=True, nsys_trace=["osrt"]),
    ],
)  # fmt: skip
def test_launcher_comes_back_from_json(launcher):
    again = launcher_from_json(launcher.to_json())
    assert again.command(4) == launcher.command(4)


def test_unknown_launcher_and_unknown_field_are_named():
    with pytest.raises(ExecutorError, match=r"no launcher of kind 'horovod' is installed; .*: ft, mpi, processes, "):
        launcher_from_json({"kind": "horovod"})
    with pytest.raises(ExecutorError, match="Processes has no field nprocs; its fields are nproc_per_node, nsys_"):
        launcher_from_json({"kind": "processes", "nprocs": 2})


OWN = """
import dataclasses
from nemo_airflow.executors.launchers import RANK, Launcher

@dataclasses.dataclass(frozen=True, kw_only=True)
class Greeting(Launcher):
    kind = "greeting"
    words: str = "hello"

    def start(self, processes):
        return ("sh", "-c", f'echo {self.words}; RANK=0 "$@"', "sh", "{python}", *RANK)
"""


def test_launcher_of_ones_own_is_registered_by_an_entry_point(tmp_path, monkeypatch, local):
    (tmp_path / "greeting.py").write_text(OWN)
    info = tmp_path / "greeting-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greeting\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[nemo_airflow.launchers]\ngreeting = greeting:Greeting\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    executor = executor_from_json({"kind": "local", "root": str(tmp_path), "launcher": {"kind": "greeting"}})
    assert executor_from_json(executor.to_json()).to_json() == executor.to_json()
    outcome, lines, _, _ = run(executor, script_job("echo job"))
    assert outcome.succeeded
    assert lines == ["hello", "job"]


NSYS = """#!/bin/sh
# Stands in for Nsight Systems: it runs the command, and leaves its own command line as the profile.
all="$*"
while [ "${1#-}" != "$1" ] || [ "$1" = profile ]; do
  case $1 in --output=*) output=${1#--output=} ;; esac
  shift
done
"$@"; code=$?
echo "$all" >"$output.nsys-rep"
exit $code
"""


@pytest.fixture
def nsys(tmp_path):
    """A folder with the stand-in of a program that cannot be installed here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nsys").write_text(NSYS)
    (folder / "nsys").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("launcher", [Processes(nproc_per_node=2), ScriptTemplate(text="{{ command }}")])
def test_profile_is_among_the_outputs(tmp_path, nsys, launcher):
    launcher = dataclasses.replace(launcher, nsys_profile=True, nsys_gpu_metrics=True, nsys_folder="profile {folder}")
    executor = LocalExecutor(root=str(tmp_path / "jobs"), env=nsys, launcher=launcher)
    outcome, lines, _, outputs = run(executor, dataclasses.replace(script_job("echo job"), key="profiled"))
    assert outcome.succeeded, lines
    assert any("job" in line for line in lines)
    assert outputs == ["profile {folder}"]
    (report,) = (tmp_path / "jobs/profiled/outputs/profile {folder}").glob("*.nsys-rep")
    assert report.read_text().startswith("profile --sample=none --trace=nvtx,cuda --output=")
    assert "--force-overwrite=true --gpu-metrics-devices=all --capture-range=cudaProfilerApi " in report.read_text()


def test_mpi_is_refused_where_slurm_does_not_start_the_processes(local):
    with pytest.raises(ExecutorArgumentError, match="launcher MPI: only SlurmExecutor has it"):
        local(MPI()).render(script_job("true"))


def test_slurm_starts_the_processes_of_mpi_itself(ssh_conn_id, lab_slurm):
    assert "--mpi=pmix" in SlurmExecutor(launcher=MPI()).launch()
    launcher = MPI(mpi="pmi2")  # Debian's Slurm has no library for the other one
    executor = SlurmExecutor(ssh_conn_id=ssh_conn_id, nodes=2, ntasks_per_node=2, launcher=launcher, time="10", grace=2)
    text = 'echo "${PMI_RANK:-none} $RANK of $WORLD_SIZE $LOCAL_RANK"'
    outcome, lines, _, _ = run(executor, script_job(text))
    assert outcome.succeeded, lines
    assert sorted(line.partition(": ")[2] for line in lines) == [f"{rank} {rank} of 4 {rank % 2}" for rank in range(4)]


HANGS = """
import os, time
import nvidia_resiliency_ext.fault_tolerance as ft

def work():
    client = ft.RankMonitorClient()
    client.init_workload_monitoring()
    for _ in range(5):
        client.send_heartbeat()
        time.sleep(0.1)
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
        time.sleep(600)
    client.shutdown_workload_monitoring()
    return os.environ["TORCHELASTIC_RESTART_COUNT"]
"""


def test_process_that_hangs_is_started_again(lab_torch, monkeypatch, tmp_path):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path))
    package = write_archive({"hangs.py": HANGS.encode()}, PackageStore(settings.packages_folder()))
    plan = {"version": 1, "root": {"_target_": "hangs:work"}}
    job = Job(key="hangs", name="hangs", plan=plan, allow=("hangs:work",), package=package)
    launcher = FaultTolerance(
        nproc_per_node=2, max_restarts=1, workload_check_interval=0.5, initial_rank_heartbeat_timeout=60,
        rank_heartbeat_timeout=15, rank_termination_signal="SIGKILL", log_level="WARNING",
    )  # fmt: skip
    outcome, lines, _, _ = run(LocalExecutor(root=str(tmp_path / "jobs"), python=lab_torch, launcher=launcher), job)
    assert outcome.succeeded, "\n".join([outcome.message, *lines])
    assert outcome.result == "1"


def test_torch_trains_on_two_nodes_and_four_processes(ssh_conn_id, lab_slurm, lab_torch, monkeypatch, tmp_path):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(DAGS))
    from digits.data import Data
    from digits.distributed import train
    from digits.model import Model, Optimizer

    code = {f"digits/{path.name}": path.read_bytes() for path in (DAGS / "digits").glob("*.py")}
    package = write_archive(code, PackageStore(settings.packages_folder()))
    config = Config(
        train, data=Config(Data, until="2026-01-05", weeks=52), model=Config(Model, hidden=[32]),
        optimizer=Config(Optimizer, epochs=8, learning_rate=0.01),
    )  # fmt: skip
    plan = plans.to_plan(config)
    job = Job(
        key=f"ddp-{uuid.uuid4().hex[:12]}", name="ddp", plan=plan, allow=tuple(plans.targets(plan)), package=package
    )
    executor = SlurmExecutor(
        ssh_conn_id=ssh_conn_id, root="~/ddp", nodes=2, ntasks_per_node=2, python=lab_torch, time="10",
        launcher=Torchrun(),
    )  # fmt: skip
    outcome, lines, records, outputs = run(executor, job)
    assert outcome.succeeded, "\n".join([outcome.message, *lines])
    assert outcome.result["world_size"] == 4
    assert outcome.result["accuracy"] > 0.85
    said = [line for line in lines if "digits" in line and "rank" in line]
    assert len(said) == 4, "\n".join(lines)
    losses = [point for record in records if record.type == "metrics" for point in record.data["points"]]
    assert [point[2] for point in losses] == list(range(8))
    assert outputs == ["model.pt"]


def test_nothing_of_torch_is_imported_by_the_config():
    sys.path.insert(0, str(DAGS))
    try:
        from digits import distributed
    finally:
        sys.path.remove(str(DAGS))
    assert "import torch" not in inspect.getsource(distributed).split("def ")[0]
