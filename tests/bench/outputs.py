"""``make bench``: how fast a job's outputs come from a back-end, beside the raw tools, and what memory that takes.

From SSH, Slurm and Kubernetes: one file of 1 GB, and 10,000 files of 4 KiB. All in one run, interleaved, medians of
several; the ratios are what counts. Ours runs in a process of its own that has imported its libraries, as a worker has,
and logs in each time, as the tools do. Memory is what its peak grows by from then on.

Then once what a task does: a process as of a triggerer follows the job to its end, and one as of a worker keeps the
outputs in an MLflow server and in a shared store, and lets go of them. Needs the lab (``make lab``).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from back_ends import IMAGE, SCRATCH, login, prepare

SHAPES = {
    "1 GB in one file": "head -c 1000000000 /dev/urandom >large.bin",
    "10,000 files of 4 KiB": "head -c 40960000 /dev/urandom | split -b 4096 -a 4 -d - part-",
}

Fetch = Callable[[Path], tuple[float, float]]
"""Fetches into a folder; returns seconds, and MB of memory or NaN."""


def main() -> None:
    """Runs the benchmark and prints its table; with ``--ours`` it does one thing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each")
    parser.add_argument("--only", nargs="*", help="back-ends to measure")
    parser.add_argument("--ours", nargs=4, help="what, executor and job as JSON, and what it takes: do that")
    options = parser.parse_args()
    tests = Path(__file__).resolve().parents[1]
    sys.path += [str(tests), str(tests / "tracking")]
    if options.ours:
        what, executor, handle, given = options.ours
        {"collect": collect, "follow": follow, "keep": keep}[what](executor, handle, given)
        return
    SCRATCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home:
        prepare(Path(home))
        os.environ.update(NEMO_AIRFLOW_STORE=f"{home}/store", MLFLOW_DISABLE_TELEMETRY="true")
        from tracking_cases import Server

        (Path(home) / "mlflow").mkdir()
        server = Server(Path(home) / "mlflow")
        try:
            server.start()
            os.environ["MLFLOW_TRACKING_URI"] = server.uri
            print("| from | | by | seconds | times the best tool | memory, MB |\n|---|---|---|--:|--:|--:|")
            for name, made in executors().items():
                if not options.only or name in options.only:
                    for shape, script in SHAPES.items():
                        measure(name, shape, made, script, options.repeat, Path(home))
        finally:
            server.close()


def executors() -> dict[str, Any]:
    """The back-ends."""
    from nemo_airflow import KubernetesExecutor, SlurmExecutor, SSHExecutor

    return {
        "ssh": SSHExecutor(ssh_conn_id="bench", root="~/bench-outputs"),
        "slurm": SlurmExecutor(ssh_conn_id="bench", root="~/bench-outputs-slurm"),
        "kubernetes": KubernetesExecutor(container_image=IMAGE, image_pull_policy="Never", linger=3600),
    }


def measure(name: str, shape: str, executor: Any, script: str, repeat: int, home: Path) -> None:
    """Has a job leave its outputs, fetches them by each contender in turn, and prints the rows."""
    from nemo_airflow import Script, blocking
    from nemo_airflow.config import plan as plans
    from nemo_airflow.follow import Outcome
    from nemo_airflow.job import Job

    plan = plans.to_plan(Script(inline=f'cd "$NEMO_AIRFLOW_OUTPUT_DIR"; {script}'))
    job = Job(key=f"bench-{uuid.uuid4().hex[:8]}", name="outputs", plan=plan, allow=plans.targets(plan))
    driver = executor.connect()
    handle = blocking.run(driver.submit(executor.render(job)), 120)
    watched = alone("follow", executor, handle)
    outcome = Outcome.from_json(json.loads(watched[2]))
    if not outcome.succeeded:
        raise SystemExit(f"the job of {name} has failed: {outcome.message}")
    if name == "kubernetes":
        tools = from_pod(handle.key)
    else:
        tools = from_host(f"{executor.root.removeprefix('~/')}/jobs/{handle.key}/outputs")
    contenders = {**tools, "`collect`": lambda into: alone("collect", executor, handle, str(into))[:2]}
    found: dict[str, list[tuple[float, float]]] = {who: [] for who in contenders}
    for _ in range(repeat):
        for who, contender in contenders.items():
            into = Path(tempfile.mkdtemp(dir=home))
            found[who].append(contender(into))
            count = sum(1 for path in into.rglob("*") if path.is_file())
            if count != outcome.outputs["files"]:
                raise SystemExit(f"{who} has fetched {count} files of {outcome.outputs['files']}")
            if count == 1:
                shutil.rmtree(into)
            # Else the end of all removes it: ext4 passes over what was just freed, which the next would pay for.
            os.sync()  # what one has written is not to be paid by the next
    best = min(statistics.median(seconds for seconds, _ in found[who]) for who in tools)
    for who, each in found.items():
        seconds, memory = (statistics.median(values) for values in zip(*each, strict=True))
        shown = "" if memory != memory else f"{memory:.0f}"
        print(f"| {name} | {shape} | {who} | {seconds:.2f} | {seconds / best:.2f} | {shown} |", flush=True)
    kept = alone("keep", executor, handle, watched[2])
    print(f"| {name} | {shape} | keeping, in a worker | {kept[0]:.2f} | | {kept[1]:.0f} |")
    print(f"| {name} | {shape} | following, in a triggerer | | | {watched[1]:.0f} |", flush=True)
    blocking.run(driver.cancel([handle]), 60)
    shutil.rmtree(home / "store")


def from_host(path: str) -> dict[str, Fetch]:
    """The tools that fetch a folder of the lab's host."""
    ssh = login()
    *options, where = ssh[1:]
    port = options[options.index("-p") + 1]
    rest = [word for word in options if word not in ("-p", port)]
    return {
        "`scp -r`": tool(lambda into: ["scp", "-qr", *rest, "-P", port, f"{where}:{path}", str(into)]),
        "`rsync -a`": tool(lambda into: ["rsync", "-a", "-e", " ".join(ssh[:-1]), f"{where}:{path}/", str(into)]),
        "`tar` over `ssh`": tool(
            lambda into: ["sh", "-c", f"{' '.join(ssh)} tar -cf - -C {path} . | tar -xf - -C {into}"]
        ),
    }


def from_pod(key: str) -> dict[str, Fetch]:
    """The tools that fetch the outputs of a pod."""
    from nemo_airflow.executors.kubernetes import manifest

    found = subprocess.run(
        ["kubectl", "get", "pods", "-o", "jsonpath={.items[*].metadata.name}"],
        check=True,
        capture_output=True,
        text=True,
    )
    [pod] = [name for name in found.stdout.split() if key in name]
    path = f"{manifest.BASE}/job/outputs"
    run = f"kubectl exec {pod} -c {manifest.CONTAINER} -- tar -cf - -C {path} ."
    return {
        "`kubectl cp`": tool(lambda into: ["kubectl", "cp", f"{pod}:{path}", str(into), "-c", manifest.CONTAINER]),
        "`tar` over `kubectl exec`": tool(lambda into: ["sh", "-c", f"{run} | tar -xf - -C {into}"]),
    }


def tool(command: Callable[[Path], list[str]]) -> Fetch:
    """A command line."""

    def turn(into: Path) -> tuple[float, float]:
        begun = time.perf_counter()
        done = subprocess.run(command(into), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{command(into)[0]} exited with {done.returncode}: {done.stderr.strip()}")
        return time.perf_counter() - begun, float("nan")

    return turn


def alone(what: str, executor: Any, handle: Any, given: str = "") -> tuple[float, float, str]:
    """Does one of ours in a process of its own; returns seconds, MB of memory, and its result."""
    words = [what, json.dumps(executor.to_json()), json.dumps(handle.to_json()), given]
    done = subprocess.run([sys.executable, __file__, "--ours", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{what} has failed: {done.stderr[-2000:]}")
    seconds, memory, result = done.stdout.splitlines()[-1].split(" ", 2)
    return float(seconds), float(memory), result


class Meter:
    """Measures a block of code: seconds, and what the peak of this process's memory grows by."""

    def __enter__(self) -> Meter:
        # Not ru_maxrss: a process begins with that of the one that has started it.
        Path("/proc/self/clear_refs").write_text("5")
        self._idle = _status("VmRSS")
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begun
        self.memory = max(_status("VmHWM") - self._idle, 0) * 1024 / 1e6

    def report(self, result: str = "") -> None:
        """Prints what was measured, for :func:`alone`."""
        print(self.seconds, self.memory, result)


def _status(field: str) -> int:
    """Returns a size of this process, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def load(executor_json: str, handle_json: str) -> tuple[Any, Any]:
    """Returns an executor and a job, with all imported that a worker has, and a login made."""
    import nemo_airflow.operators.keeping  # noqa: F401 - as in a worker
    from nemo_airflow import blocking
    from nemo_airflow.executors import executor_from_json
    from nemo_airflow.job import JobHandle

    executor, handle = executor_from_json(json.loads(executor_json)), JobHandle.from_json(json.loads(handle_json))

    async def warm() -> None:
        driver = executor.connect()
        await driver.look([handle])
        await driver.close()

    blocking.run(warm())
    return executor, handle


def collect(executor_json: str, handle_json: str, into: str) -> None:
    """Fetches once into a folder, from a login on."""
    from nemo_airflow import blocking

    executor, handle = load(executor_json, handle_json)
    with Meter() as meter:
        blocking.run(executor.connect().collect(handle, Path(into)))
    meter.report()


def follow(executor_json: str, handle_json: str, _: str) -> None:
    """Follows the job to its end, as a triggerer does."""
    from nemo_airflow import blocking
    from nemo_airflow.follow import Follower

    executor, handle = load(executor_json, handle_json)
    with Meter() as meter:
        outcome = blocking.run(Follower(executor, handle, on_line=lambda line: None, warn=print).run(), 600)
    meter.report(json.dumps(outcome.to_json()))


def keep(executor_json: str, handle_json: str, outcome_json: str) -> None:
    """Keeps the outputs as the worker does that resumes a task: in its run, in the shared store, then lets go."""
    import logging

    from tracking_cases import make_job

    from nemo_airflow.follow import Outcome
    from nemo_airflow.operators.keeping import Keeping
    from nemo_airflow.tracking.mlflow import MLflowTracker
    from nemo_airflow.tracking.run import open_run

    executor, handle = load(executor_json, handle_json)
    tracker = MLflowTracker(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    job = make_job(handle.key)
    run = open_run(tracker, job, experiment="bench", shares_filesystem=False, collector="", warn=print)
    tracker.tag(run.ref, {"warm": "yes"})
    logging.basicConfig(level=logging.INFO)
    with Meter() as meter:
        Keeping(
            executor, handle, run, Outcome.from_json(json.loads(outcome_json)), State(), logging.getLogger("keep")
        ).keep()
    meter.report()


class State(dict[str, Any]):
    """Stands for Airflow's store of a task's state, which is a database."""

    def set(self, key: str, value: Any) -> None:
        """Stores a value."""
        self[key] = value


if __name__ == "__main__":
    main()
