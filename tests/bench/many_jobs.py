"""Follows a thousand Slurm jobs in one event loop, beside the SSH provider's own trigger on the same jobs.

Each watcher is a process of its own, behind a proxy that counts its connections and can make the link long: first each
alone on the machine, ours also over a long link, then both on the very same jobs. The jobs are submitted on hold, and
released once they are watched. Needs the lab (``make lab``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import many

if TYPE_CHECKING:
    from lab.backends import Ssh

    from nemo_airflow.executors import SlurmExecutor
    from nemo_airflow.executors.batch.driver import BatchDriver

sys.path.insert(0, str(Path(__file__).parents[1]))

ROOT = "~/bench"


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds of delay, each way, on the long link")
    parser.add_argument("--rounds", nargs="*", choices=("ours", "theirs", "far", "together"), help="which; default all")
    parser.add_argument("--watch", choices=WATCHERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        asyncio.run(WATCHERS[options.watch](json.load(sys.stdin)))
        return
    from lab.backends import Lab

    ssh = Lab().ssh
    ours, theirs = WATCHERS
    rounds = {
        "ours": ([ours], 0.0),
        "theirs": ([theirs], 0.0),
        "far": ([ours], options.delay),
        "together": ([*WATCHERS], 0.0),
    }
    for name in options.rounds or rounds:
        names, delay = rounds[name]
        measure(ssh, options.jobs, names, delay)


def measure(ssh: Ssh, count: int, names: list[str], delay: float) -> None:
    """Has the same new jobs followed by the watchers, and prints what each took."""
    from lab.delay_proxy import DelayProxy

    from nemo_airflow import blocking

    connect("bench", ssh)
    executor, driver, handles = blocking.run(submit(count))

    def run(script: str) -> str:
        # By the connection that is there: the watchers' own may fill what sshd lets begin at once.
        return blocking.run(driver.shell.run(script)).text

    with contextlib.ExitStack() as stack:
        proxies = {name: stack.enter_context(DelayProxy(f"{ssh.host}:{ssh.port}", delay)) for name in names}
        given = {"executor": executor.to_json(), "handles": [handle.to_json() for handle in handles]}
        watchers = {}
        for name, proxy in proxies.items():
            connect("bench", ssh, proxy.port)
            watchers[name] = many.start(__file__, name, given, os.environ)
        time.sleep(20)
        begun = time.time()
        for first in range(0, count, 200):
            run(f"scontrol release {','.join(handle.id for handle in handles[first : first + 200])}")
        reports = {name: many.report_of(watcher) for name, watcher in watchers.items()}
    text = run(f"cd {ROOT}/jobs; for k in *; do printf '%s ' $k; cat $k/end.json; echo; done")
    ended = {line.split(" ", 1)[0]: json.loads(line.split(" ", 1)[1])["ended"] for line in text.splitlines() if line}
    run(f"rm -rf {ROOT}")
    print(f"{count} jobs, the last ended after {max(ended.values()) - begun:.0f} s; link {delay * 1000:.0f} ms")
    for name, report in reports.items():
        many.show(name, report, ended, proxies[name].total)


def connect(name: str, ssh: Ssh, port: int | None = None) -> None:
    """Defines the Airflow connection for this process and those that it starts."""
    from lab.connections import ssh_connection

    data = json.loads(ssh_connection(ssh))
    data["port"] = port or data["port"]
    os.environ[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps(data)


async def submit(count: int) -> tuple[SlurmExecutor, BatchDriver, list]:
    """Submits the jobs on hold."""
    from nemo_airflow.executors import SlurmExecutor
    from nemo_airflow.job import Job

    executor = SlurmExecutor(ssh_conn_id="bench", root=ROOT, additional_parameters={"hold": True})
    driver = executor.connect()
    script = "for i in 1 2 3; do echo line $i; sleep 0.3; done; echo 0 >../exit_code"
    plan = {"version": 1, "root": {"_target_": "nemo_airflow.runner.script:run", "inline": script}}
    handles = []
    begun = time.time()
    for number in range(count):
        job = Job(key=f"bench-{uuid.uuid4().hex[:12]}", name="bench", plan=plan, sample_interval=0)
        handles.append(await driver.submit(executor.render(job)))
        print(f"\rsubmitted {number + 1} in {time.time() - begun:.0f} s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return executor, driver, handles


async def watch_ours(given: dict) -> None:
    """Runs this project's trigger for each job."""
    from nemo_airflow.executors.registry import executor_from_json
    from nemo_airflow.jobs.service import JobService
    from nemo_airflow.triggers.run import NemoRunTrigger

    triggers = {h["key"]: NemoRunTrigger(executor=given["executor"], handle=h) for h in given["handles"]}
    shell = JobService.shared(executor_from_json(given["executor"])).driver.shell
    await many.measure(
        triggers, lambda event: event["outcome"]["status"]["state"] == "succeeded", lambda: shell.commands, lambda: 0
    )


async def watch_theirs(given: dict) -> None:
    """Runs the SSH provider's trigger for each job."""
    from airflow.providers.ssh.triggers.ssh_remote_job import SSHRemoteJobTrigger

    triggers = {}
    for handle in given["handles"]:
        folder = f"/home/hpc/bench/jobs/{handle['key']}"
        triggers[handle["key"]] = SSHRemoteJobTrigger(
            ssh_conn_id="bench", remote_host=None, job_id=handle["key"], job_dir=folder, log_file=f"{folder}/log",
            exit_code_file=f"{folder}/exit_code", remote_os="posix", poll_interval=5,
        )  # fmt: skip
    await many.measure(triggers, lambda event: event["status"] == "success", lambda: 0, lambda: 0)


WATCHERS = {"nemo-airflow": watch_ours, "SSHRemoteJobTrigger": watch_theirs}

if __name__ == "__main__":
    main()
