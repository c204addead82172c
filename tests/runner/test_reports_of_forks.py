"""Processes that fork while another thread reports: the child reports as well."""


def test_child_forked_while_a_thread_reports_reports_too(run):
    code = """
import os, threading
from nemo_airflow.runner import channel as channels
from nemo_airflow.runner import log_metric

def fork_while_a_report_is_sent():
    log_metric("before", 1)
    (channel,) = channels._channels.values()
    with channel._lock:  # as another thread holds it at that moment
        pid = os.fork()
        if pid == 0:
            log_metric("of_fork", 2)
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    log_metric("after", 3)
"""
    ran = run("fork_while_a_report_is_sent", code=code, time_limit=20.0)
    assert ran.end["state"] == "succeeded", ran.lines
    assert sorted(name for name, *_ in ran.points) == ["after", "before", "of_fork"]
