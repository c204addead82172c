"""Follows a thousand Slurm jobs in one event loop, beside the SSH provider's own trigger on the same jobs.

Each watcher is a process of its own, behind a proxy that counts its connections and can make the link long.
The jobs are submitted on hold and released once both watch. Needs the lab (``make lab``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.backends import Ssh

    from nemo_airflow.executors import SlurmExecutor
    from nemo_airflow.executors.slurm.session import SlurmSession

    Watcher = tuple[subprocess.Popen[str], TextIO]

sys.path.insert(0, str(Path(__file__).parents[1]))

ROOT = "~/bench"
MARK = "REPORT "


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds of delay on the link, each way")
    parser.add_argument("--only", choices=WATCHERS, help="one of the watchers, alone on the machine")
    parser.add_argument("--watch", choices=WATCHERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        asyncio.run(WATCHERS[options.watch](json.load(sys.stdin)))
        return
    from lab.backends import Lab
    from lab.delay_proxy import DelayProxy

    ssh = Lab().ssh
    connect("bench", ssh)
    from nemo_airflow import blocking

    executor, session, handles = blocking.run(submit(options.jobs))
    names = [options.only] if options.only else list(WATCHERS)
    with contextlib.ExitStack() as stack:
        proxies = {name: stack.enter_context(DelayProxy(f"{ssh.host}:{ssh.port}", options.delay)) for name in names}
        # By the connection that is there: the watchers' own may fill what sshd lets begin at once.
        watch(options, ssh, executor, handles, proxies, lambda script: blocking.run(session.shell.run(script)).text)


def watch(
    options: argparse.Namespace,
    ssh: Ssh,
    executor: SlurmExecutor,
    handles: list,
    proxies: dict,
    run: Callable[[str], str],
) -> None:
    """Starts the watchers, releases the jobs, and prints what each watcher took."""
    given = json.dumps({"executor": executor.to_json(), "handles": [handle.to_json() for handle in handles]})
    watchers = {name: start(name, ssh, proxy.port, given) for name, proxy in proxies.items()}
    time.sleep(20)
    ids = [handle.id for handle in handles]
    begun = time.time()
    for first in range(0, len(ids), 200):
        run(f"scontrol release {','.join(ids[first : first + 200])}")
    reports = {name: report_of(watcher) for name, watcher in watchers.items()}
    text = run(f"cd {ROOT}/jobs; for k in *; do printf '%s ' $k; cat $k/end.json; echo; done")
    ended = {line.split(" ", 1)[0]: json.loads(line.split(" ", 1)[1])["ended"] for line in text.splitlines() if line}
    run(f"rm -rf {ROOT}")
    last = max(ended.values()) - begun
    print(f"{options.jobs} jobs, the last ended after {last:.0f} s; link {options.delay * 1000:.0f} ms")
    for name, report in reports.items():
        show(name, report, ended, proxies[name].total)


def connect(name: str, ssh: Ssh, port: int | None = None) -> None:
    """Defines the Airflow connection for this process and those that it starts."""
    from lab.connections import ssh_connection

    data = json.loads(ssh_connection(ssh))
    data["port"] = port or data["port"]
    os.environ[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps(data)


async def submit(count: int) -> tuple[SlurmExecutor, SlurmSession, list]:
    """Submits the jobs on hold."""
    from nemo_airflow.executors import SlurmExecutor
    from nemo_airflow.job import Job

    executor = SlurmExecutor(ssh_conn_id="bench", root=ROOT, additional_parameters={"hold": True})
    session = executor.connect()
    script = "for i in 1 2 3; do echo line $i; sleep 0.3; done; echo 0 >../exit_code"
    plan = {"version": 1, "root": {"_target_": "nemo_airflow.runner.script:run", "inline": script}}
    handles = []
    begun = time.time()
    for number in range(count):
        job = Job(key=f"bench-{uuid.uuid4().hex[:12]}", name="bench", plan=plan, sample_interval=0)
        handles.append(await session.submit(executor.render(job)))
        print(f"\rsubmitted {number + 1} in {time.time() - begun:.0f} s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return executor, session, handles


def start(name: str, ssh: Ssh, port: int, given: str) -> Watcher:
    """Starts a watcher behind its proxy."""
    connect("bench", ssh, port)
    command = [sys.executable, __file__, "--watch", name]
    # A file: a pipe that nobody empties would hold up the watcher, whose triggers write their task logs there.
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the watcher
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, text=True)
    assert watcher.stdin is not None
    watcher.stdin.write(given)
    watcher.stdin.close()
    return watcher, output


async def watch_ours(given: dict) -> None:
    """Runs this project's trigger for each job."""
    from nemo_airflow.executors.registry import executor_from_json
    from nemo_airflow.monitor import Monitor
    from nemo_airflow.triggers.run import NemoRunTrigger

    triggers = {h["key"]: NemoRunTrigger(executor=given["executor"], handle=h) for h in given["handles"]}
    shell = Monitor.shared(executor_from_json(given["executor"])).session.shell
    await measure(triggers, lambda event: event["outcome"]["status"]["state"] == "succeeded", lambda: shell.commands)


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
    await measure(triggers, lambda event: event["status"] == "success", lambda: 0)


async def measure(triggers: dict, succeeded: object, commands: object) -> None:
    """Runs triggers in this event loop, and prints what it took."""
    ended, failed = {}, []
    longest = 0.0

    async def follow(key: str, trigger: object) -> None:
        async for event in trigger.run():
            ended[key] = time.time()
            if not succeeded(event.payload):
                failed.append(key)
            return

    async def heart() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.05)
            longest = max(longest, time.monotonic() - before - 0.05)

    beating = asyncio.create_task(heart())
    begun, cpu = time.time(), time.process_time()
    await asyncio.gather(*(follow(key, trigger) for key, trigger in triggers.items()))
    beating.cancel()
    report = {
        "ended": ended, "failed": failed, "seconds": time.time() - begun, "cpu": time.process_time() - cpu,
        "commands": commands(), "silence": longest, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip
    print(f"\n{MARK}{json.dumps(report)}")


def report_of(watcher: Watcher) -> dict:
    """Waits for a watcher, and returns what it printed for us."""
    process, output = watcher
    process.wait()
    with output:
        output.seek(0)
        return next(json.loads(line.removeprefix(MARK)) for line in output if line.startswith(MARK))


def show(name: str, report: dict, ended: dict[str, float], connections: int) -> None:
    """Prints one watcher's figures."""
    waits = sorted(report["ended"][key] - ended[key] for key in report["ended"] if key in ended)
    p95 = waits[int(len(waits) * 0.95)]
    print(
        f"{name:20} connections {connections:5}  commands/s {report['commands'] / report['seconds']:5.2f}  "
        f"CPU {report['cpu']:6.1f} s in {report['seconds']:4.0f} s  "
        f"end to end: median {statistics.median(waits):5.2f} s, p95 {p95:5.2f} s  "
        f"longest silence {report['silence']:.2f} s  wrongly failed {len(report['failed'])}  {report['rss']:.0f} MiB"
    )


WATCHERS = {"nemo-airflow": watch_ours, "SSHRemoteJobTrigger": watch_theirs}

if __name__ == "__main__":
    main()
