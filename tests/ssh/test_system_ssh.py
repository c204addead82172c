"""The machine's own ssh: its configuration counts, and the master connection that a person has opened is used."""

import contextlib
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import uuid

import pytest
from lab.connections import ssh_connection

from nemo_airflow import Script, blocking
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import AccessRefused, BackendUnavailable, SettingsError
from nemo_airflow.executors import SlurmExecutor, SSHExecutor
from nemo_airflow.follow import Follower
from nemo_airflow.job import Job
from nemo_airflow.ssh.shell import Shell


@pytest.fixture
def config(lab_ssh, tmp_path):
    """Returns a function that writes a configuration of ssh for the host ``site``: its path."""
    known = tmp_path / "known_hosts"
    known.write_text(f"[{lab_ssh.host}]:{lab_ssh.port} {lab_ssh.host_key}\n")

    def written(name, key=lab_ssh.key_file):
        path = tmp_path / name
        lines = [
            "Host site", f"HostName {lab_ssh.host}", f"Port {lab_ssh.port}", f"User {lab_ssh.user}",
            f"UserKnownHostsFile {known}", f"ControlPath {tmp_path}/master", "IdentitiesOnly yes",
            f"IdentityFile {key}", "IdentityAgent none",
        ]  # fmt: skip
        path.write_text("\n".join(lines) + "\n")
        return path

    return written


@pytest.fixture
def connect(monkeypatch, lab_ssh):
    """Returns a function that defines the connection ``site``."""

    def connected(config, **extra):
        extra = {"system_ssh": True, "config_file": str(config), "key_file": None, "host_key": None, **extra}
        given = json.loads(json.loads(ssh_connection(lab_ssh, **extra))["extra"])
        site = {"conn_type": "ssh", "host": "site", "extra": json.dumps(given)}
        monkeypatch.setenv("AIRFLOW_CONN_SITE", json.dumps(site))
        return "site"

    return connected


@contextlib.contextmanager
def master(config):
    """A person who is logged in."""
    ssh = ["ssh", "-F", str(config), "-o", "ControlMaster=yes", "-N", "-f", "site"]
    subprocess.run(ssh, check=True, stdin=subprocess.DEVNULL, timeout=300)
    try:
        yield
    finally:
        subprocess.run(["ssh", "-F", str(config), "-O", "exit", "site"], check=True, capture_output=True, timeout=300)


def run_in_shell(conn_id, *scripts):
    async def asked():
        shell = Shell(conn_id)
        try:
            return [await shell.run(script) for script in scripts]
        finally:
            await shell.close()

    return blocking.run(asked(), 300)


def test_commands_go_to_the_host_of_the_configuration(config, connect):
    answers = run_in_shell(connect(config("config")), "echo $SSH_CONNECTION; exit 3", "echo second >&2")
    assert answers[0].code == 3
    assert len(answers[0].text.split()) == 4
    assert answers[1].err == "second\n"


def test_a_person_logs_in_and_all_jobs_go_through_that_connection(config, connect, tmp_path):
    conn_id = connect(config("without_key", key=tmp_path / "none"))
    with pytest.raises(AccessRefused, match=r"run `ssh -F \S+ site` once as .*, with ControlMaster"):
        run_in_shell(conn_id, "true")
    with master(config("with_key")):
        (answer,) = run_in_shell(conn_id, "echo in")
        assert answer.text == "in\n"
        assert follow(SSHExecutor(ssh_conn_id=conn_id, grace=1)) == ["a line"]
    with pytest.raises(AccessRefused):
        run_in_shell(conn_id, "true")


def test_jobs_of_a_scheduler_go_there_too(lab_slurm, config, connect):
    assert follow(SlurmExecutor(ssh_conn_id=connect(config("config")), grace=1)) == ["a line"]


def follow(executor):
    """Runs a job with an output, and returns its lines."""
    lines = []
    plan = plans.to_plan(Script(inline="echo a line"))
    job = Job(key=f"system-ssh-{uuid.uuid4().hex[:8]}", name="job", plan=plan, allow=plans.targets(plan))

    async def run():
        driver = executor.connect()
        try:
            handle = await driver.submit(executor.render(job))
            on_line = lambda line: lines.append(line.text)  # noqa: E731
            follower = Follower(executor, handle, on_line=on_line, warn=pytest.fail, inform=print)
            assert (await follower.run()).succeeded
            await driver.remove([handle])
        finally:
            await driver.close()

    blocking.run(run(), 300)
    return lines


def test_key_that_is_not_the_known_one_is_refused(config, connect, tmp_path):
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"]
    subprocess.run(make, check=True, capture_output=True)
    public = (tmp_path / "other.pub").read_text().rsplit(" ", 1)[0]
    (tmp_path / "known_hosts").write_text((tmp_path / "known_hosts").read_text().split()[0] + f" {public}\n")
    with pytest.raises(
        AccessRefused, match=r"the host key of site .* is not the known one: run `ssh -F \S+ site` and compare"
    ):
        run_in_shell(connect(config("config")), "true")


def test_host_that_is_not_there_is_away(config, connect):
    path = config("config")
    path.write_text(path.read_text().replace("HostName ", "HostName 127.0.0.1 #").replace("Port ", "Port 1 #"))
    with pytest.raises(BackendUnavailable, match=r"cannot connect to site .*: .*refused"):
        run_in_shell(connect(path), "true")


def test_machine_without_ssh_says_what_to_install(config, connect, monkeypatch, tmp_path):
    conn_id = connect(config("config"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="and there is none: install openssh-client"):
        run_in_shell(conn_id, "true")


@pytest.mark.parametrize("extra", [{"key_file": "/key"}, {"jump_conn_id": "gate"}, {"no_host_key_check": "true"}])
def test_what_ssh_has_in_its_configuration_is_not_taken_from_the_connection(config, connect, extra):
    (name,) = extra
    with pytest.raises(SettingsError, match=f"has system_ssh and {name}: say that in ~/.ssh/config"):
        run_in_shell(connect(config("config"), **extra), "true")


ENTER = """
import asyncio
from nemo_airflow.ssh.shell import Shell
from nemo_airflow.terminal import Terminal

async def enter():
    shell = Shell("site")
    try:
        return await shell.enter("test -t 0 && stty size; echo $USER; read word; exit ${#word}", Terminal())
    finally:
        await shell.close()

raise SystemExit(asyncio.run(enter()))
"""


def test_a_person_enters_with_their_terminal(config, connect, lab_ssh):
    connect(config("config"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", ENTER], stdin=theirs, stdout=theirs, stderr=theirs)
    shown = b""
    while f"33 101\r\n{lab_ssh.user}\r\n".encode() not in shown:
        assert select.select([ours], [], [], 60)[0], shown
        shown += os.read(ours, 1000)
    os.write(ours, b"seven77\n")
    assert process.wait(300) == 7
