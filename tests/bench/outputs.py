"""``make bench``: how fast a job's outputs come from a back-end, beside the raw tools, and what memory that takes.

From SSH, Slurm and Kubernetes: one file of 1 GB, and 10,000 files of 4 KiB. All in one run, interleaved, medians of
several; the ratios are what counts. Ours runs in a process of its own that has imported its libraries, as a worker has,
and logs in each time, as the tools do. Memory is what its peak grows by. Needs the lab (``make lab``).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
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
    """Runs the benchmark and prints its table; with ``--ours`` it is one fetch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each")
    parser.add_argument("--only", nargs="*", help="back-ends to measure")
    parser.add_argument("--ours", nargs=3, help="executor and job as JSON, and the folder: fetch that")
    options = parser.parse_args()
    if options.ours:
        fetch(*options.ours)
        return
    SCRATCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home:
        prepare(Path(home))
        print("| from | | fetched by | seconds | times the best tool | memory, MB |\n|---|---|---|--:|--:|--:|")
        for name, made in executors().items():
            if not options.only or name in options.only:
                for shape, script in SHAPES.items():
                    measure(name, shape, made, script, options.repeat, Path(home))


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
    from nemo_airflow.follow import Follower
    from nemo_airflow.job import Job

    plan = plans.to_plan(Script(inline=f'cd "$NEMO_AIRFLOW_OUTPUT_DIR"; {script}'))
    job = Job(key=f"bench-{uuid.uuid4().hex[:8]}", name="outputs", plan=plan, allow=plans.targets(plan))
    driver = executor.connect()
    handle = blocking.run(driver.submit(executor.render(job)), 120)
    outcome = blocking.run(Follower(executor, handle, on_line=print, warn=print).run(), 600)
    if not outcome.succeeded:
        raise SystemExit(f"the job of {name} has failed: {outcome.message}")
    if name == "kubernetes":
        tools = from_pod(handle.key)
    else:
        tools = from_host(f"{executor.root.removeprefix('~/')}/jobs/{handle.key}/outputs")
    contenders = {**tools, "`collect`": ours(executor, handle)}
    found: dict[str, list[tuple[float, float]]] = {who: [] for who in contenders}
    for _ in range(repeat):
        for who, contender in contenders.items():
            into = home / "into"
            into.mkdir()
            found[who].append(contender(into))
            count = sum(1 for path in into.rglob("*") if path.is_file())
            if count != outcome.outputs["files"]:
                raise SystemExit(f"{who} has fetched {count} files of {outcome.outputs['files']}")
            shutil.rmtree(into)
            os.sync()  # what one has written is not to be paid by the next
    best = min(statistics.median(seconds for seconds, _ in found[who]) for who in tools)
    for who, each in found.items():
        seconds, memory = (statistics.median(values) for values in zip(*each, strict=True))
        shown = "" if memory != memory else f"{memory:.0f}"
        print(f"| {name} | {shape} | {who} | {seconds:.2f} | {seconds / best:.2f} | {shown} |", flush=True)
    blocking.run(driver.release([handle]), 60)
    blocking.run(driver.cancel([handle]), 60)


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


def ours(executor: Any, handle: Any) -> Fetch:
    """This project's ``collect``, in a process of its own."""

    def turn(into: Path) -> tuple[float, float]:
        given = [json.dumps(executor.to_json()), json.dumps(handle.to_json()), str(into)]
        done = subprocess.run([sys.executable, __file__, "--ours", *given], check=True, capture_output=True, text=True)
        seconds, memory = done.stdout.split()[-2:]
        return float(seconds), float(memory)

    return turn


def fetch(executor_json: str, handle_json: str, into: str) -> None:
    """Fetches once, and prints seconds and MB."""
    import asyncio

    from nemo_airflow.executors import executor_from_json
    from nemo_airflow.job import JobHandle

    executor, handle = executor_from_json(json.loads(executor_json)), JobHandle.from_json(json.loads(handle_json))

    async def both() -> tuple[float, int]:
        warm = executor.connect()
        await warm.look([handle])
        await warm.close()
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.perf_counter()
        driver = executor.connect()
        await driver.collect(handle, Path(into))
        seconds = time.perf_counter() - begun
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle
        await driver.close()
        return seconds, grown

    seconds, grown = asyncio.run(both())
    print(seconds, grown * 1024 / 1e6)


if __name__ == "__main__":
    main()
