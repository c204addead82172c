"""The log of a pod that has ended is read once its node answers again."""

import threading
import time
import uuid

from lab import chaos

from nemo_airflow import blocking
from nemo_airflow.executors import KubernetesExecutor
from nemo_airflow.follow import Follower
from nemo_airflow.job import Job
from nemo_airflow.testing.services import service_of

LINES = 40


def wait_for(condition, what):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, f"waited 60 s for {what}"
        time.sleep(0.1)


def test_log_of_a_pod_whose_node_answers_only_later(lab_to_break, lab_image):
    lab_to_break.up("docker", "k8s")
    executor = KubernetesExecutor(container_image=lab_image, config_file=str(lab_to_break.kubeconfig), grace=1)
    plan = {"version": 1, "root": {"_target_": "nemo_airflow.runner.script:run", "inline": f"seq {LINES}"}}
    driver = executor.connect()
    job = Job(key=f"away-{uuid.uuid4().hex[:12]}", name="away", plan=plan)
    handle = blocking.run(driver.submit(executor.render(job)))
    wait_for(lambda: blocking.run(service_of(driver).status([handle]))[handle.key].state.is_final, "the end of the job")
    lines: list[str] = []
    warnings: list[str] = []
    follower = Follower(executor, handle, on_line=lambda line: lines.append(line.text), warn=warnings.append)
    outcomes = []
    following = threading.Thread(target=lambda: outcomes.append(blocking.run(follower.run(), 300)))
    with chaos.killed(lab_to_break, "kubelet"):
        following.start()
        wait_for(lambda: warnings, "the log to be asked for in vain")
        assert (outcomes, lines) == ([], [])
    following.join()
    assert outcomes[0].succeeded, outcomes
    assert lines == [str(number) for number in range(1, LINES + 1)]
