"""Kills whoever takes part in running jobs, as a plan says that was drawn at random, and counts what came of it.

A *task* stands for one of Airflow's: a worker process submits its job, or finds it, and a triggerer process follows the
jobs of all tasks to their ends. Both do what the operator and its trigger do, on the same driver and follower,
and are killed and started again; so are the daemons of the back-end. A job that its back-end lost, for a reason that is
worth a retry, is tried again as Airflow would, under the next key.

Run as a program it is one of the two processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kill_plan import KillPlan
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from nemo_airflow import blocking
from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.follow import Follower, Outcome
from nemo_airflow.job import FailureKind, Job, JobHandle
from nemo_airflow.jobs.collecting import collect_outputs
from nemo_airflow.operators.back_end import BackEnd

LINES = 60
SCRIPT = f"""
run="$NEMO_AIRFLOW_KEY $(cat /proc/sys/kernel/random/uuid)"
for number in $(seq {LINES}); do echo $run >> $COUNT; echo line $number; sleep 0.15; done
echo $NEMO_AIRFLOW_KEY > $NEMO_AIRFLOW_OUTPUT_DIR/note
echo $run end >> $COUNT
"""
WORTH_A_RETRY = (FailureKind.PREEMPTED, FailureKind.NODE_FAILURE, FailureKind.LOST)


@dataclasses.dataclass
class Counts:
    """What came of it all. Every number but the first six should be zero.

    Slurm, when it has lost the last seconds before its death, queues jobs again that are done, some of them held for
    ever: ``reaped`` counts what there was to end that no task waited for. It also ends jobs of which it knows nothing,
    and begins anew those that it finds in its queue: ``restarted``. A job has run twice if it did so at the same time
    or after it was done.
    """

    tasks: int = 0
    jobs: int = 0
    restarted: int = 0
    kills: Counter[str] = dataclasses.field(default_factory=Counter)
    retried: int = 0
    reaped: int = 0
    ran_twice: int = 0
    lost_results: int = 0
    wrongly_failed: int = 0
    lost_or_doubled_lines: int = 0
    lost_outputs: int = 0
    orphans: int = 0

    @property
    def faults(self) -> dict[str, int]:
        """What should not have happened, and how often it did."""
        names = [field.name for field in dataclasses.fields(self)][6:]
        return {name: count for name in names if (count := getattr(self, name))}

    def __str__(self) -> str:
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        zero = ", ".join(f"{f.name.replace('_', ' ')} {getattr(self, f.name)}" for f in dataclasses.fields(self)[6:])
        jobs = f"{self.tasks} tasks, {self.jobs} jobs"
        jobs += f", {self.restarted} restarted, {self.retried} retried, {self.reaped} reaped"
        return f"{jobs}; killed: {kills}; {zero}"


class Harness:
    """Runs tasks on one back-end while things are killed.

    Args:
        executor: The back-end, with what its jobs need to write to ``counter``.
        folder: For what the processes tell each other.
        counter: The file on this machine to which each job that runs appends its key.
        inside: What the jobs call that file.
        chaos: What to kill besides worker and triggerer, by name: each is called with for how long, as a share of
            the longest time, and mends what it broke.
        plan: Who is killed when. It is carried out to its end, though the tasks may have ended before.
    """

    def __init__(
        self,
        executor: Executor,
        folder: Path,
        counter: Path,
        inside: str,
        chaos: Mapping[str, Callable[[float], object]],
        plan: KillPlan,
    ) -> None:
        self.executor = executor
        self.folder = folder
        self.counter = counter
        self.chaos = chaos
        self.counts = Counts()
        self._plan = plan
        self._prefix = f"chaos-{uuid.uuid4().hex[:8]}"
        self._done = threading.Event()
        self._broken: list[BaseException] = []
        given = {"executor": executor.to_json(), "folder": str(folder), "env": {"COUNT": inside}}
        (folder / "given.json").write_text(json.dumps(given))

    def run(self, timeout: float) -> Counts:
        """Runs the plan's tasks to their end, and returns what came of it."""
        self.counts.tasks = len(self._plan.starts)
        breaker = threading.Thread(target=self._heard, args=(self._break_things,))
        triggerer = threading.Thread(target=self._heard, args=(self._keep_triggerer,))
        breaker.start()
        triggerer.start()
        try:
            deadline = time.monotonic() + timeout
            workers = [
                threading.Thread(target=self._heard, args=(self._task, number, deadline))
                for number in range(self.counts.tasks)
            ]
            for worker, pause in zip(workers, self._plan.starts, strict=True):
                worker.start()
                time.sleep(pause)
            for worker in workers:
                worker.join()
        finally:
            breaker.join()
            self._done.set()
            triggerer.join()
        if self._broken:
            raise RuntimeError(f"the test itself broke down after: {self.counts}") from self._broken[0]
        self._count()
        return self.counts

    def _heard(self, part: Callable[..., None], *arguments: object) -> None:
        """Runs one thread's part. What it raises ends the test: a daemon may be dead that nobody starts again."""
        try:
            part(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._broken.append(error)

    def _task(self, number: int, deadline: float) -> None:
        for attempt in range(1, 20):
            key = f"{self._prefix}-{number}-{attempt}"
            self._submit(key, deadline, deaths=self._plan.workers[number] if attempt == 1 else ())
            outcome = self._outcome_of(key, deadline)
            if outcome is None:
                self.counts.lost_results += 1
                return
            if outcome.succeeded:
                return
            if outcome.status.failure not in WORTH_A_RETRY:
                print(f"{key}: {outcome}", file=sys.stderr)
                self.counts.wrongly_failed += 1
                return
            self.counts.retried += 1

    def _submit(self, key: str, deadline: float, deaths: Sequence[float]) -> None:
        """Has a worker submit the job: the first ones are killed, and the last one is left to do it."""
        for seconds in deaths:
            worker = self._start("submit", key)
            try:
                worker.wait(seconds)
            except subprocess.TimeoutExpired:
                worker.kill()
                self.counts.kills["worker"] += 1
            worker.wait()
        while not (self.folder / f"{key}.handle").exists() and time.monotonic() < deadline and not self._broken:
            self._start("submit", key).wait()

    def _outcome_of(self, key: str, deadline: float) -> Outcome | None:
        path = self.folder / f"{key}.outcome"
        while not path.exists():
            if time.monotonic() > deadline or self._broken:
                return None
            time.sleep(0.1)
        return Outcome.from_json(json.loads(path.read_text()))

    def _keep_triggerer(self) -> None:
        for seconds in self._plan.triggerers:
            triggerer = self._start("follow")
            with contextlib.suppress(subprocess.TimeoutExpired):
                triggerer.wait(seconds)
                raise RuntimeError(f"a triggerer ended of itself: see {self.folder / 'follow.log'}")
            triggerer.kill()
            triggerer.wait()
            self.counts.kills["triggerer"] += 1
        triggerer = self._start("follow")
        while triggerer.poll() is None and not self._done.wait(0.05):
            continue
        triggerer.kill()
        triggerer.wait()

    def _break_things(self) -> None:
        for each in self._plan.breaks:
            time.sleep(each.pause)
            self.chaos[each.name](each.share)
            self.counts.kills[each.name] += 1

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            command = [sys.executable, __file__, str(self.folder), *arguments]
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def _count(self) -> None:
        self.counts.orphans = self._orphans()
        runs = _runs(self.counter.read_text().splitlines())
        self.counts.jobs = len(runs)
        self.counts.restarted = sum(len(of_job) - 1 for of_job in runs.values())
        self.counts.ran_twice = sum(_overlap(of_job) for of_job in runs.values())
        for path in self.folder.glob("*.outcome"):
            if Outcome.from_json(json.loads(path.read_text())).succeeded:
                lines = path.with_suffix(".lines").read_text().splitlines()
                self.counts.lost_or_doubled_lines += not _whole(lines, starts=len(runs[path.stem]))
                self.counts.lost_outputs += path.with_suffix(".note").read_text().split() != [path.stem]

    def _orphans(self) -> int:
        """Returns how many of the jobs still run, also after those were ended that no task waits for."""
        left = self._left_after(60)
        if left:
            self.counts.reaped = len(left)
            blocking.run(_cancel(self.executor, left))
            left = self._left_after(60)
        return len(left)

    def _left_after(self, seconds: float) -> list[JobHandle]:
        """Returns which jobs still run. What a job needs to end, once its work is done, it may take."""
        deadline = time.monotonic() + seconds
        while True:
            jobs = [job for job in blocking.run(_survey(self.executor)) if job.key.startswith(self._prefix)]
            if not jobs or time.monotonic() > deadline:
                return jobs
            time.sleep(1)


@dataclasses.dataclass
class _Run:
    """One start of a job: where in the counter its first and last lines stand, and whether it came to its end."""

    first: int
    last: int
    ended: bool = False


def _runs(counter: list[str]) -> dict[str, list[_Run]]:
    """Returns the starts of each job, in order, from the lines that they all appended to one file."""
    runs: dict[str, dict[str, _Run]] = {}
    for place, line in enumerate(counter):
        key, run, *end = line.split()
        found = runs.setdefault(key, {}).setdefault(run, _Run(place, place))
        found.last, found.ended = place, bool(end)
    return {key: list(of_job.values()) for key, of_job in runs.items()}


def _overlap(runs: list[_Run]) -> bool:
    """Returns whether a job was started while it ran, or when it was done."""
    return any(before.ended or before.last > after.first for before, after in itertools.pairwise(runs))


def _whole(lines: list[str], starts: int) -> bool:
    """Returns whether these are a job's lines, each once, after what earlier starts wrote before they were killed."""
    begins = [place for place, line in enumerate(lines) if line == "line 1"]
    if not begins:
        return False
    parts = [lines[begin:end] for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True)]
    expected = [f"line {number}" for number in range(1, LINES + 1)]
    in_order = all(part == expected[: len(part)] for part in parts)
    return in_order and lines[-LINES:] == expected and 1 <= len(parts) <= starts and begins[0] == 0


async def _cancel(executor: Executor, jobs: list[JobHandle]) -> None:
    driver = executor.connect()
    try:
        await driver.cancel(jobs)
    finally:
        await driver.close()


async def _survey(executor: Executor) -> list[JobHandle]:
    driver = executor.connect()
    try:
        async for attempt in _patiently():
            with attempt:
                return await driver.survey()
    finally:
        await driver.close()
    return []


def _patiently() -> AsyncRetrying:
    return AsyncRetrying(
        retry=retry_if_exception_type(BackendUnavailable), wait=wait_fixed(1), stop=stop_after_delay(120), reraise=True
    )


# The two processes


async def submit(executor: Executor, folder: Path, env: Mapping[str, str], key: str) -> None:
    """Does what the operator does in a worker."""
    plan = {"version": 1, "root": {"_target_": "nemo_airflow.runner.script:run", "inline": SCRIPT}}
    job = Job(key=key, name="chaos", plan=plan, env=env, heartbeat=1.0, sample_interval=0)
    driver = executor.connect()
    async for attempt in _patiently():
        with attempt:
            found = await driver.find([key])
            handle = found.get(key) or await driver.submit(executor.render(job))
    _write(folder / f"{key}.handle", json.dumps(handle.to_json()))
    os._exit(0)  # a driver need not be closed well


async def follow(executor: Executor, folder: Path) -> None:
    """Does what the triggerer does with the triggers of all tasks."""
    begun: dict[str, asyncio.Task[None]] = {}
    while True:
        for path in folder.glob("*.handle"):
            if path.stem not in begun and not path.with_suffix(".outcome").exists():
                handle = JobHandle.from_json(json.loads(path.read_text()))
                begun[path.stem] = asyncio.create_task(_follow_one(executor, folder, handle))
        for task in begun.values():
            if task.done():
                task.result()
        await asyncio.sleep(0.1)


async def _follow_one(executor: Executor, folder: Path, handle: JobHandle) -> None:
    with (folder / f"{handle.key}.lines").open("w", buffering=1) as lines:
        follower = Follower(
            executor,
            handle,
            on_line=lambda line: print(line.text, file=lines),
            warn=lambda text: print(text),
        )
        outcome = await follower.run()
    if outcome.outputs is not None:
        await _keep(executor, handle, folder / f"{handle.key}.note", outcome.outputs)
    _write(folder / f"{handle.key}.outcome", json.dumps(outcome.to_json()))


async def _keep(executor: Executor, handle: JobHandle, target: Path, counts: Mapping[str, int]) -> None:
    """Keeps what the job has written, and has the back-end let go of it, unless an earlier triggerer has."""
    if not target.exists():
        with tempfile.TemporaryDirectory() as into:
            await collect_outputs(executor, handle, Path(into, "outputs"), counts=counts, inform=print, warn=print)
            note = Path(into, "outputs/note")
            _write(target, note.read_text() if note.exists() else "")
    await asyncio.to_thread(BackEnd(executor, print).release, handle)


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(f".new{os.getpid()}")
    new.write_text(text)
    new.replace(path)


def main() -> None:
    """Is a worker or the triggerer."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    folder = Path(sys.argv[1])
    given = json.loads((folder / "given.json").read_text())
    executor = executor_from_json(given["executor"])
    if sys.argv[2] == "submit":
        asyncio.run(submit(executor, folder, given["env"], sys.argv[3]))
    else:
        asyncio.run(follow(executor, folder))


if __name__ == "__main__":
    main()
