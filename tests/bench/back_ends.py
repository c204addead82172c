"""What a trivial task costs on each back-end: the raw tool, this project's operator, and Airflow's own.

All in one process and one run, interleaved, warm, from ``execute()`` on. Needs the lab (``make lab``).
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCRATCH = ROOT / ".bench"
IMAGE = "python-lab:3.11"
PYTHON = ["python3", "-c", "import time; print(time.time())"]

Turn = Callable[[], float]


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="runs of each, after one to warm up")
    parser.add_argument("--only", nargs="*", help="back-ends to measure")
    options = parser.parse_args()
    SCRATCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home:
        prepare(Path(home))
        cluster = ray_cluster() if not options.only or "ray" in options.only else None
        try:
            contenders = {
                name: made()
                for name, made in {
                    "docker": docker, "ssh": ssh, "slurm": slurm, "kubernetes": kubernetes,
                    **({"ray": lambda: ray(cluster.address)} if cluster else {}),
                }.items()
                if not options.only or name in options.only
            }  # fmt: skip
            times = measure(contenders, options.repeat)
        finally:
            if cluster:
                cluster.remove()
    report(times)


def measure(contenders: dict[str, dict[str, Turn]], repeat: int) -> dict[str, dict[str, list[float]]]:
    """Runs them all, one after the other, several times."""
    times: dict[str, dict[str, list[float]]] = {name: {who: [] for who in turns} for name, turns in contenders.items()}
    for turn in range(repeat + 1):
        for name, turns in contenders.items():
            for who, run in turns.items():
                print(f"\rturn {turn} of {repeat}: {name} {who:30}", end="", file=sys.stderr, flush=True)
                seconds = run()
                if turn:
                    times[name][who].append(seconds)
    print(file=sys.stderr)
    return times


def report(times: dict[str, dict[str, list[float]]]) -> None:
    """Prints medians, and their ratios to the raw tool."""
    from rich.console import Console
    from rich.table import Table

    table = Table("back-end", "", "seconds", "ratio", title="A trivial task, medians, whole")
    for name, turns in times.items():
        raw = statistics.median(next(iter(turns.values())))
        for who, some in turns.items():
            median = statistics.median(some)
            table.add_row(name, who, f"{median:.2f}", f"{median / raw:.1f}")
        table.add_section()
    Console(width=120).print(table)


def prepare(home: Path) -> None:
    """Makes an Airflow of its own, and says where the lab is."""
    os.environ.update(
        AIRFLOW_HOME=str(home), NEMO_AIRFLOW_HOME=str(home / "nemo"), AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
    )  # fmt: skip
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    (home / "dags").mkdir()
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    from lab.backends import Lab
    from lab.connections import ssh_connection

    lab = Lab()
    os.environ.update(lab.env)
    os.environ["AIRFLOW_CONN_BENCH"] = ssh_connection(lab.ssh)


def task(cls: type, **arguments: Any) -> Turn:
    """Returns what runs a task of an operator, and gives the seconds from the begin of ``execute()`` to its end."""
    from airflow.sdk import DAG
    from dag_database import register

    seconds: list[float] = []

    class Timed(cls):  # type: ignore[misc]
        def execute(self, context: object) -> object:
            begun = time.perf_counter()
            try:
                return super().execute(context)
            finally:
                seconds.append(time.perf_counter() - begun)

    with DAG(f"bench_{uuid.uuid4().hex[:8]}", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        Timed(task_id="trivial", **arguments)
    register(dag)

    def turn() -> float:
        [instance] = dag.test().get_task_instances()
        if instance.state != "success":
            raise SystemExit(f"the task of {cls.__name__} ended {instance.state}")
        return seconds[-1]

    return turn


def ours(executor: object) -> Turn:
    """This project's operator on a back-end."""
    import bench_jobs

    from nemo_airflow import Config, NemoRunOperator
    from nemo_airflow.packaging import GitArchivePackager

    repository = Path(os.environ["AIRFLOW_HOME"]) / "repository"
    if not repository.exists():
        repository.mkdir()
        (repository / "bench_jobs.py").write_text((HERE / "bench_jobs.py").read_text())
        git = ["git", "-C", str(repository), "-c", "user.name=bench", "-c", "user.email=bench@example.invalid"]
        for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "bench"]):
            subprocess.run([*git, *arguments], check=True)
    return task(
        NemoRunOperator, config=Config(bench_jobs.trivial), job_executor=executor, deferrable=False, tracker=None,
        packager=GitArchivePackager(path=str(repository)),
    )  # fmt: skip


def command(*words: str) -> Turn:
    """A command line."""

    def turn() -> float:
        begun = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{words[0]} exited with {done.returncode}: {done.stderr.strip()}")
        return time.perf_counter() - begun

    return turn


def docker() -> dict[str, Turn]:
    """A container."""
    from airflow.providers.docker.operators.docker import DockerOperator

    from nemo_airflow import DockerExecutor

    theirs = {"image": IMAGE, "command": PYTHON, "docker_url": os.environ["DOCKER_HOST"], "auto_remove": "force"}
    return {
        "docker run": command("docker", "run", "--rm", IMAGE, *PYTHON),
        "NemoRunOperator": ours(DockerExecutor(container_image=IMAGE)),
        "DockerOperator": task(DockerOperator, **theirs),
    }


def ssh() -> dict[str, Turn]:
    """A process of a host."""
    from airflow.providers.ssh.operators.ssh import SSHOperator

    from nemo_airflow import SSHExecutor

    line = f'{PYTHON[0]} -c "{PYTHON[2]}"'
    return {
        "ssh": command(*login(), line),
        "NemoRunOperator": ours(SSHExecutor(ssh_conn_id="bench", root="~/bench-ssh")),
        "SSHOperator": task(SSHOperator, ssh_conn_id="bench", command=line),
    }


def slurm() -> dict[str, Turn]:
    """A batch job."""
    from airflow.providers.ssh.operators.ssh import SSHOperator

    from nemo_airflow import SlurmExecutor

    line = f"sbatch --wait --output=/dev/null --wrap 'python3 -c \"{PYTHON[2]}\"'"
    return {
        "ssh sbatch --wait": command(*login(), line),
        "NemoRunOperator": ours(SlurmExecutor(ssh_conn_id="bench", root="~/bench-slurm")),
        "SSHOperator: sbatch --wait": task(SSHOperator, ssh_conn_id="bench", command=line, cmd_timeout=60),
    }


def login() -> list[str]:
    """The command line of ``ssh`` to the lab."""
    from lab.backends import Lab

    to = Lab().ssh
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes")
    named = [word for option in options for word in ("-o", option)]
    return ["ssh", *named, "-i", str(to.key_file), "-p", str(to.port), f"{to.user}@{to.host}"]


def kubernetes() -> dict[str, Turn]:
    """A pod."""
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    from nemo_airflow import KubernetesExecutor

    def raw() -> float:
        name = f"bench-{uuid.uuid4().hex[:8]}"
        begun = time.perf_counter()
        run = ["kubectl", "run", name, f"--image={IMAGE}", "--image-pull-policy=Never", "--restart=Never"]
        spec = '{"spec": {"automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0}}'
        subprocess.run([*run, f"--overrides={spec}", "--", *PYTHON], check=True, capture_output=True)
        phase = ["kubectl", "get", "pod", name, "-o", "jsonpath={.status.phase}"]
        while subprocess.run(phase, check=True, capture_output=True, text=True).stdout != "Succeeded":
            time.sleep(0.05)
        seconds = time.perf_counter() - begun
        subprocess.run(["kubectl", "delete", "pod", name, "--wait=false"], check=True, capture_output=True)
        return seconds

    theirs = {
        "image": IMAGE, "cmds": PYTHON, "name": "bench", "config_file": os.environ["KUBECONFIG"], "in_cluster": False,
        "namespace": "default", "image_pull_policy": "Never", "automount_service_account_token": False,
        "on_finish_action": "delete_pod", "termination_grace_period": 0,
    }  # fmt: skip
    return {
        "kubectl run": raw,
        "NemoRunOperator": ours(KubernetesExecutor(container_image=IMAGE, image_pull_policy="Never")),
        "KubernetesPodOperator": task(KubernetesPodOperator, **theirs),
    }


def ray_cluster() -> Any:
    """A Ray cluster of its own."""
    from lab.ray_cluster import RayCluster

    return RayCluster().start()


def ray(address: str) -> dict[str, Turn]:
    """A Ray job; Airflow has no operator of its own for it."""
    from nemo_airflow import RayExecutor

    def raw() -> float:
        from ray.job_submission import JobStatus, JobSubmissionClient

        begun = time.perf_counter()
        client = JobSubmissionClient(address)
        job = client.submit_job(entrypoint=f'{PYTHON[0]} -c "{PYTHON[2]}"')
        while client.get_job_status(job) != JobStatus.SUCCEEDED:
            time.sleep(0.05)
        client.get_job_logs(job)
        return time.perf_counter() - begun

    return {"JobSubmissionClient": raw, "NemoRunOperator": ours(RayExecutor(address=address))}


if __name__ == "__main__":
    main()
