"""Follows two hundred containers or pods in one event loop; pods beside KubernetesPodOperator's own trigger.

The jobs wait for an hour that is the same for all, so that the watchers watch before any ends; where the
machine cannot hold them all at once, the rest starts as the first have ended. DockerOperator has no trigger:
it takes a worker process for each container. Needs the lab (``make lab``).
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import many

if TYPE_CHECKING:
    from nemo_airflow.executors import Executor
    from nemo_airflow.executors.base import Driver
    from nemo_airflow.job import JobHandle

sys.path.insert(0, str(Path(__file__).parents[1]))

IMAGE = "python-lab:3.11"
AT_ONCE = 8
SPREAD = 60.0
"""Seconds over which the ends are spread: two cores cannot end two hundred containers at once."""


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--only", choices=("docker", "kubernetes"), help="one of the back-ends")
    parser.add_argument("--alone", action="store_true", help="without the provider's trigger, which takes a core")
    parser.add_argument("--watch", choices=WATCHERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        asyncio.run(WATCHERS[options.watch](json.load(sys.stdin)))
        return
    from lab.backends import Lab

    os.environ.update(Lab().env)
    for kind in [options.only] if options.only else ("docker", "kubernetes"):
        asyncio.run(bench(kind, options.jobs, alone=options.alone))


async def bench(kind: str, count: int, *, alone: bool) -> None:
    """Starts the jobs, then the watchers, and prints what each took."""
    from nemo_airflow import DockerExecutor, KubernetesExecutor

    executor: Executor = DockerExecutor(container_image=IMAGE)
    if kind == "kubernetes":
        executor = KubernetesExecutor(container_image=IMAGE, image_pull_policy="Never", cpus=0.01)
    driver = executor.connect()
    gate = time.time() + 30 + count * (0.4 if kind == "docker" else 1.2)
    handles = await submit(executor, driver, count, gate)
    print(f"{kind}: {count} submitted, {gate - time.time():.0f} s before the first ends", file=sys.stderr)
    given = {"executor": executor.to_json(), "handles": [handle.to_json() for handle in handles]}
    names = ["nemo-airflow"] if alone or kind == "docker" else list(WATCHERS)
    watchers = {name: many.start(__file__, name, given, os.environ) for name in names}
    reports = {name: await asyncio.to_thread(many.report_of, watcher) for name, watcher in watchers.items()}
    ended = await ends(driver, handles)
    print(f"{count} {kind} jobs, the last ended {max(ended.values()) - gate:.0f} s after the first could")
    for name, report in reports.items():
        many.show(name, report, ended, report["connections"])
    await driver.remove(handles)
    await driver.close()


async def submit(executor: Executor, driver: Driver, count: int, gate: float) -> list[JobHandle]:
    """Submits jobs that end one after the other once the gate has opened."""
    from nemo_airflow.job import Job

    slots = asyncio.Semaphore(AT_ONCE)
    handles: list[JobHandle] = []

    async def one(number: int) -> None:
        until = gate + SPREAD * number / count
        left = f"BEGIN {{ left = {until:.2f} - $(date +%s.%N); print (left > 0 ? left : 1) }}"
        script = f'echo waiting; sleep $(awk "{left}"); echo done'
        plan = {"version": 1, "root": {"_target_": "nemo_airflow.runner.script:run", "inline": script}}
        job = Job(key=f"bench-{uuid.uuid4().hex[:12]}", name="bench", plan=plan, sample_interval=0)
        async with slots:
            handles.append(await driver.submit(executor.render(job)))
        print(f"\rsubmitted {len(handles)}", end="", file=sys.stderr, flush=True)

    await asyncio.gather(*(one(number) for number in range(count)))
    print(file=sys.stderr)
    return handles


async def ends(driver: Driver, handles: list[JobHandle]) -> dict[str, float]:
    """Returns when the jobs ended, by their own last records."""
    from nemo_airflow.executors.base import Cursor
    from nemo_airflow.stream import Record, StreamReader

    ended = {}
    for handle in handles:
        reader, offset = StreamReader(), 0
        while chunks := await driver.read([Cursor(handle, offset)]):
            offset += len(chunks[0].data)
            for item in reader.feed(chunks[0].data):
                if isinstance(item, Record) and item.type == "end":
                    ended[handle.key] = item.data["ended"]
    return ended


def counted() -> dict[str, int]:
    """Counts the HTTP requests and connections that this process makes from now on."""
    import aiohttp
    import requests.adapters
    import urllib3

    counts = {"requests": 0, "connections": 0}

    def count(cls: type, name: str, what: str) -> None:
        original = getattr(cls, name)

        def counting(*arguments: Any, **keywords: Any) -> Any:
            counts[what] += 1
            return original(*arguments, **keywords)

        setattr(cls, name, counting)

    count(aiohttp.ClientSession, "_request", "requests")
    count(aiohttp.TCPConnector, "_create_connection", "connections")
    count(requests.adapters.HTTPAdapter, "send", "requests")
    count(urllib3.connectionpool.HTTPConnectionPool, "_new_conn", "connections")
    return counts


async def watch_ours(given: dict) -> None:
    """Runs this project's trigger for each job."""
    from nemo_airflow.triggers.run import NemoRunTrigger

    counts = counted()
    triggers = {h["key"]: NemoRunTrigger(executor=given["executor"], handle=h) for h in given["handles"]}
    await many.measure(
        triggers,
        lambda event: event["outcome"]["status"]["state"] == "succeeded",
        lambda: counts["requests"],
        lambda: counts["connections"],
    )


async def watch_theirs(given: dict) -> None:
    """Runs the Kubernetes provider's trigger for each pod."""
    from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger

    os.environ["AIRFLOW_CONN_BENCH"] = json.dumps(
        {"conn_type": "kubernetes", "extra": {"kube_config_path": os.environ["KUBECONFIG"]}}
    )
    counts = counted()
    triggers = {
        handle["key"]: KubernetesPodTrigger(
            pod_name=handle["key"], pod_namespace="default", trigger_start_time=datetime.datetime.now(datetime.UTC),
            base_container_name="job", kubernetes_conn_id="bench", in_cluster=False, startup_timeout=3600,
            schedule_timeout=3600, on_finish_action="keep_pod",
        )
        for handle in given["handles"]
    }  # fmt: skip
    await many.measure(
        triggers,
        lambda event: event["status"] == "success",
        lambda: counts["requests"],
        lambda: counts["connections"],
    )


WATCHERS = {"nemo-airflow": watch_ours, "KubernetesPodTrigger": watch_theirs}

if __name__ == "__main__":
    main()
