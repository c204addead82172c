"""What a container writes while its daemon is away, and it ends meanwhile, is not lost with the daemon's log."""

import time
import uuid

import psutil
from lab import chaos

from nemo_airflow import blocking
from nemo_airflow.executors import DockerExecutor
from nemo_airflow.executors.base import Cursor
from nemo_airflow.follow import Follower
from nemo_airflow.job import Job

LINES = 40


def test_last_lines_of_a_container_that_ends_while_the_daemon_is_away(lab_to_break, lab_image):
    lab_to_break.up("docker")
    executor = DockerExecutor(container_image=lab_image, docker_url=lab_to_break.docker_host)
    script = f"for n in $(seq {LINES}); do echo line $n; sleep 0.1; done"
    plan = {"version": 1, "root": {"_target_": "nemo_airflow.runner.script:run", "inline": script}}
    driver = executor.connect()
    handle = blocking.run(
        driver.submit(executor.render(Job(key=f"away-{uuid.uuid4().hex[:12]}", name="away", plan=plan)))
    )
    deadline = time.monotonic() + 60
    while not any(b"line 5" in chunk.data for chunk in blocking.run(driver.read([Cursor(handle)]))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process = psutil.Process(int(lab_to_break.command("docker", "inspect", "-f", "{{.State.Pid}}", handle.id)))
    chaos.kill(lab_to_break, "dockerd")
    try:
        # Its next start would kill what of the container still runs.
        deadline = time.monotonic() + 60
        while not chaos.gone(process):
            assert time.monotonic() < deadline, f"{process} did not end within 60 s"
            time.sleep(0.1)
    finally:
        chaos.restart(lab_to_break, "dockerd")
    lines: list[str] = []
    follower = Follower(executor, handle, on_line=lambda line: lines.append(line.text), warn=print)
    outcome = blocking.run(follower.run(), 120)
    assert outcome.succeeded, outcome
    assert lines == [f"line {number}" for number in range(1, LINES + 1)]
