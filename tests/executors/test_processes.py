"""Processes are told apart from those that later get their id."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

from nemo_airflow.executors import processes


def reference(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return processes.ProcessRef(pid, int(fields[19]), processes.boot_id(), socket.gethostname())


def test_running_process_is_alive_and_an_ended_one_is_not():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ref = reference(child.pid)
    assert processes.is_alive(ref) is True
    child.communicate(b"\n")
    assert processes.is_alive(ref) is False


def test_zombie_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ref = reference(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes.is_alive(ref) is False
    child.communicate()


def test_another_process_with_the_same_id_is_not_taken_for_it():
    me = reference(os.getpid())
    assert processes.is_alive(me) is True
    assert processes.is_alive(dataclasses.replace(me, start_ticks=me.start_ticks - 1)) is False
    assert processes.is_alive(dataclasses.replace(me, boot_id="another boot")) is False


def test_of_another_machine_nothing_is_said():
    assert processes.is_alive(dataclasses.replace(reference(os.getpid()), host="elsewhere")) is None


def test_marked_processes_are_killed_in_any_session():
    code = "import os, time; os.fork() or os.setsid(); print('up', flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], env={"MARK": "this-one"}, stdout=subprocess.PIPE)
    other = subprocess.Popen([sys.executable, "-c", "input()"], env={"MARK": "this-one-not"}, stdin=subprocess.PIPE)
    assert child.stdout.readline() + child.stdout.readline() == b"up\nup\n"
    assert len(processes.kill_marked("MARK", "this-one")) == 2
    # Both held the pipe: it ends only when both are gone.
    assert child.stdout.read() == b""
    assert child.wait(300) == -9
    assert other.poll() is None
    other.communicate(b"\n")
