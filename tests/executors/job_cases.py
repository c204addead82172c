"""What the tests of executors do with jobs: make one of a script, submit it, follow it, wait for something."""

import asyncio
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from nemo_airflow import blocking
from nemo_airflow.executors.base import Cursor
from nemo_airflow.follow import Follower, Outcome
from nemo_airflow.job import Job
from nemo_airflow.testing.services import service_of


class Followed(NamedTuple):
    """What came of a job: how it ended, its lines, and what its follower said."""

    outcome: Outcome
    lines: list[str]
    said: list[str]


def script_job(text, **fields):
    """Returns a job that runs a shell script."""
    root = {"_target_": "nemo_airflow.runner.script:run", "inline": text}
    return Job(key=f"t{uuid.uuid4().hex[:20]}", name="script", plan={"version": 1, "root": root}, **fields)


def waiting_job(file):
    """Returns a job that waits for a file."""
    return script_job(f"echo begun; until [ -e {file} ]; do sleep 0.1; done; echo end")


def start(executor, job, seconds=300):
    """Submits a job by a driver of its own; returns both the driver and the job's handle."""
    driver = executor.connect()
    return driver, blocking.run(driver.submit(executor.render(job)), seconds)


def submit(executor, job, seconds=300):
    """Submits a job; returns its handle."""
    return start(executor, job, seconds)[1]


def follow(executor, handle, seconds=300):
    """Follows a job to its end."""
    lines: list[str] = []
    said: list[str] = []
    follower = Follower(executor, handle, on_line=lambda line: lines.append(line.text), warn=said.append)
    return Followed(blocking.run(follower.run(), seconds), lines, said)


def run(executor, text, **fields):
    """Submits a job of a shell script, and follows it to its end."""
    return follow(executor, submit(executor, script_job(text, **fields)))


def status(driver, handle):
    """Returns how a job fares."""
    return blocking.run(service_of(driver).status([handle]))[handle.key]


def wait_until(condition, what, seconds=300):
    """Waits until a condition holds; returns what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)
    return found


def wait_for_end(driver, handle, seconds=300):
    """Waits until the back-end says that a job has ended; returns its status."""

    def ended():
        seen = status(driver, handle)
        return seen if seen.state.is_final else None

    return wait_until(ended, "the end of the job", seconds)


def wait_for_output(driver, handle, text, seconds=300):
    """Waits until a job has written something."""

    def written():
        return any(text in chunk.data for chunk in blocking.run(driver.read([Cursor(handle)])))

    wait_until(written, f"{text!r} on the stream", seconds)


def collect_without_threads_of_others(executor, handles, into):
    """Collects the outputs of jobs by four drivers at once, while others hold every thread of the event loop."""

    async def collect_all():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        drivers = [executor.connect() for _ in range(4)]
        over = threading.Event()
        try:
            for driver in drivers:
                await driver.find(["nobody"])  # connects
            loop.run_in_executor(None, over.wait)  # whatever others wait for
            collects = [
                driver.collect(handle, into / f"{number}-{handle.key}")
                for number, driver in enumerate(drivers)
                for handle in handles
            ]
            return await asyncio.wait_for(asyncio.gather(*collects), 300)
        finally:
            over.set()
            for driver in drivers:
                await driver.close()

    return asyncio.run(collect_all())


class Following:
    """A job that is followed in a thread, beside the test."""

    def __init__(self, executor: Any, job: Job) -> None:
        self.job = job
        self.lines: list[str] = []
        self.said: list[str] = []
        self.outcome: Outcome | None = None
        self.driver, self.handle = start(executor, job)
        self._follower = Follower(
            executor, self.handle, on_line=lambda line: self.lines.append(line.text), warn=self.said.append
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.outcome = blocking.run(self._follower.run(), 300)

    def wait(self):
        """Waits for the job's end; returns how it ended."""
        self._thread.join(300)
        assert self.outcome is not None, f"followed for 300 s in vain; said: {self.said}"
        return self.outcome

    def end(self):
        """Waits for the job's end, and gives the connection back; returns how the job ended."""
        outcome = self.wait()
        blocking.run(self.driver.close())
        return outcome

    def wait_for_line(self, text):
        """Waits until the job has written a line."""
        self._wait_for(lambda: text in self.lines, f"{text!r} on the stream")

    def wait_for_word(self, text):
        """Waits until the follower has said something with a text."""
        self._wait_for(lambda: any(text in said for said in self.said), f"{text!r} to be said")

    def _wait_for(self, condition, what):
        wait_until(lambda: condition() or self.outcome, what)
        assert condition(), f"the job has ended before {what}: {self.outcome}; said: {self.said}"
