"""The lab can be broken as a cluster breaks, and comes up again from any state."""

import contextlib
import json
import os
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import asyncssh
import psutil
import psycopg2
import pytest
from lab import chaos
from lab.backends import PARTS, SCRIPT, Lab, LabError, Ssh
from lab.delay_proxy import DelayProxy


@pytest.fixture(scope="module")
def slurm(lab_to_break):
    lab_to_break.down("slurm")  # what other tests have broken and left there is not to count here
    lab_to_break.up("slurm")
    return lab_to_break


@pytest.fixture(scope="module")
def docker_lab(lab_to_break):
    lab_to_break.up("docker")
    return lab_to_break


@pytest.fixture(scope="module")
def k8s(lab_to_break):
    lab_to_break.up("k8s")
    return lab_to_break


@pytest.fixture(scope="module")
def postgres(lab_to_break):
    lab_to_break.up("postgres")
    return lab_to_break


@pytest.fixture
def gate():
    """A file that jobs wait for; everyone may read it."""
    path = Path(f"/tmp/nemo-lab-gate-{os.getpid()}-{time.monotonic_ns()}")
    yield path
    path.unlink(missing_ok=True)


def until(condition, what, limit=300):
    """Returns the condition's first true value."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.2)
    raise TimeoutError(f"not after {limit} s: {what}")


def submit_waiting_job(ssh, gate):
    script = f"while [ ! -e {gate} ]; do sleep 0.1; done"
    return ssh.run(f"sbatch --parsable -o /dev/null --wrap '{script}'").strip()


def job_state(lab, job):
    return lab.command("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").strip()


def await_start(lab, job):
    """Waits until a job runs; says what keeps it, and what the nodes are at, if it does not."""
    try:
        until(lambda: job_state(lab, job) == "RUNNING", "the job's start", 120)
    except TimeoutError as error:
        shown = lab.command("scontrol", "show", "job", job)
        nodes = lab.command("sinfo", "-N", "-o", "%N %P %T %C %E")
        pytest.fail(f"{error}\n{shown}\n{nodes}\n{lab.command('squeue', '-t', 'all')}", pytrace=False)


@contextlib.asynccontextmanager
async def login(ssh):
    known = asyncssh.import_known_hosts(ssh.known_hosts)
    async with asyncssh.connect(
        ssh.host, ssh.port, username=ssh.user, client_keys=[str(ssh.key_file)], known_hosts=known, config=None
    ) as connection:
        yield connection


class TestSlurm:
    def test_job_runs_on_while_its_controller_is_dead(self, slurm, gate):
        job = submit_waiting_job(slurm.ssh, gate)
        await_start(slurm, job)
        chaos.await_saved(slurm, job)
        with chaos.killed(slurm, "slurmctld"):
            with pytest.raises(LabError, match="does not run"):
                slurm.process("slurmctld")
            with pytest.raises(LabError, match="DOWN"):
                slurm.ssh.run("scontrol ping >&2")
        assert job_state(slurm, job) == "RUNNING"
        gate.touch()
        until(lambda: job_state(slurm, job) == "COMPLETED", "the job's end")

    def test_job_that_ends_while_its_controller_is_dead_is_completed_afterwards(self, slurm, gate):
        job = submit_waiting_job(slurm.ssh, gate)
        await_start(slurm, job)
        chaos.await_saved(slurm, job)
        with chaos.killed(slurm, "slurmctld"):
            gate.touch()
        until(lambda: job_state(slurm, job) == "COMPLETED", "the job's end")

    def test_paused_controller_answers_late(self, slurm):
        with chaos.paused(slurm, "slurmctld"), pytest.raises(subprocess.TimeoutExpired):
            slurm.command("squeue", timeout=2)
        assert "JOBID" in slurm.command("squeue")

    def test_controller_counts_what_it_is_asked(self, slurm):
        chaos.reset_rpc_counts(slurm)
        for _ in range(3):
            slurm.command("squeue")
        slurm.command("scontrol", "show", "node", "n1")
        counts = chaos.rpc_counts(slurm)
        assert counts["REQUEST_JOB_INFO"] == 3
        assert counts["REQUEST_NODE_INFO"] == 1

    def test_preempted_job_is_requeued_and_runs_again_soon(self, slurm, gate):
        job = submit_waiting_job(slurm.ssh, gate)
        await_start(slurm, job)
        urgent = slurm.ssh.run("sbatch --parsable -p urgent -N4 --exclusive -o /dev/null --wrap 'sleep 1'").strip()
        until(lambda: job_state(slurm, job) == "PENDING", "the preemption")
        until(lambda: job_state(slurm, urgent) == "COMPLETED", "the end of the job that preempted")
        gate.touch()
        until(lambda: job_state(slurm, job) == "COMPLETED", "the second run")
        assert "Restarts=1" in slurm.command("scontrol", "show", "job", job)

    def test_partitions_refuse_what_they_are_there_to_refuse(self, slurm):
        with pytest.raises(LabError, match="User's group not permitted"):
            slurm.ssh.run("sbatch -p closed --wrap true")
        job = slurm.ssh.run("sbatch --parsable -p tiny -t 5 --wrap true").strip()

        def reason():
            return slurm.command("squeue", "-h", "-j", job, "-o", "%r").strip()

        # For the first second, until the scheduler has looked at the job, the reason is less exact: PartitionConfig.
        until(lambda: reason() == "PartitionTimeLimit", "the reason why the job waits")
        slurm.command("scancel", job)


class TestSshd:
    async def test_logins_outlive_a_killed_sshd(self, slurm):
        ssh = slurm.ssh
        async with login(ssh) as connection:
            chaos.kill(slurm, "sshd")
            try:
                assert (await connection.run("echo alive")).stdout == "alive\n"
                with pytest.raises(ConnectionRefusedError):
                    await login(ssh).__aenter__()
            finally:
                chaos.restart(slurm, "sshd")
            assert (await connection.run("echo alive")).stdout == "alive\n"
        assert slurm.ssh.host_key == ssh.host_key

    async def test_cut_logins_end_and_new_ones_are_welcome(self, slurm):
        async with login(slurm.ssh) as first, login(slurm.ssh):
            assert len(chaos.logins(slurm)) == 2
            assert chaos.cut_logins(slurm) == 2
            with pytest.raises((asyncssh.Error, OSError)):
                await first.run("echo alive", check=True)
        assert slurm.ssh.run("echo alive") == "alive\n"

    async def test_login_through_the_proxy_is_slow_counted_and_can_be_cut(self, slurm):
        ssh = slurm.ssh
        with DelayProxy(f"{ssh.host}:{ssh.port}", delay=0.02) as proxy:
            async with login(Ssh("127.0.0.1", proxy.port, ssh.user, ssh.key_file, ssh.host_key)) as connection:
                begun = time.monotonic()
                assert (await connection.run("echo alive")).stdout == "alive\n"
                assert time.monotonic() - begun >= 0.04
                assert (proxy.open, proxy.total) == (1, 1)
                assert proxy.cut() == 1
                with pytest.raises((asyncssh.Error, OSError)):
                    await connection.run("echo alive", check=True)


class TestDocker:
    def test_container_outlives_a_killed_dockerd_but_not_its_next_start(self, docker_lab):
        name = f"chaos-{time.monotonic_ns()}"
        docker_lab.command("docker", "run", "-d", "--name", name, "python-lab:3.11", "sleep", "1000")
        process = psutil.Process(int(docker_lab.command("docker", "inspect", "-f", "{{.State.Pid}}", name)))
        with chaos.killed(docker_lab, "dockerd"):
            assert not chaos.gone(process)
            with pytest.raises(LabError, match="Cannot connect to the Docker daemon"):
                docker_lab.command("docker", "ps")
        state = docker_lab.command("docker", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).split()
        docker_lab.command("docker", "rm", "-f", name)
        assert chaos.gone(process)
        assert state[0] == "exited"
        assert state[1] == "137"

    def test_paused_dockerd_says_nothing(self, docker_lab):
        with chaos.paused(docker_lab, "dockerd"), pytest.raises(subprocess.TimeoutExpired):
            docker_lab.command("docker", "ps", timeout=2)
        assert "CONTAINER ID" in docker_lab.command("docker", "ps")

    def test_dockerd_is_reached_through_the_proxy(self, docker_lab):
        with DelayProxy(docker_lab.docker_host, delay=0.02) as proxy:
            docker_lab.command("docker", "-H", f"tcp://127.0.0.1:{proxy.port}", "ps")
            assert proxy.total == 1
            proxy.refuse()
            with pytest.raises(LabError):
                docker_lab.command("docker", "-H", f"tcp://127.0.0.1:{proxy.port}", "ps")
            proxy.accept()
            docker_lab.command("docker", "-H", f"tcp://127.0.0.1:{proxy.port}", "ps")


def waiting_pod(lab, gate):
    """Starts a pod that waits for the file, and returns its name when it runs."""
    name = f"chaos-{time.monotonic_ns()}"
    gate.parent.mkdir(exist_ok=True)
    manifest = f"""
        {{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}"}}, "spec": {{
          "restartPolicy": "Never", "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
          "volumes": [{{"name": "tmp", "hostPath": {{"path": "/tmp"}}}}],
          "containers": [{{"name": "job", "image": "python-lab:3.11", "imagePullPolicy": "Never",
            "volumeMounts": [{{"name": "tmp", "mountPath": "/tmp"}}],
            "command": ["sh", "-c", "while [ ! -e {gate} ]; do sleep 0.1; done; echo through"]}}]}}}}"""
    file = gate.with_suffix(".json")
    file.write_text(manifest)
    lab.command("kubectl", "create", "-f", str(file))
    file.unlink()
    until(lambda: pod_phase(lab, name) == "Running", "the pod's start")
    return name


def pod_phase(lab, name):
    return lab.command("kubectl", "get", "pod", name, "-o", "jsonpath={.status.phase}")


class TestKubernetes:
    @pytest.mark.parametrize("daemon", ["kubelet", "kube-apiserver"])
    def test_pod_that_ends_while_a_daemon_is_dead_has_succeeded_afterwards(self, k8s, gate, daemon):
        name = waiting_pod(k8s, gate)
        with chaos.killed(k8s, daemon):
            gate.touch()
            if daemon == "kube-apiserver":
                with pytest.raises(LabError, match="refused"):
                    k8s.command("kubectl", "get", "pods")
        until(lambda: pod_phase(k8s, name) == "Succeeded", "the pod's end")
        assert k8s.command("kubectl", "logs", name) == "through\n"
        k8s.command("kubectl", "delete", "pod", name)

    def test_paused_kubelet_gives_no_logs_and_a_paused_apiserver_nothing(self, k8s, gate):
        name = waiting_pod(k8s, gate)
        with chaos.paused(k8s, "kubelet"):
            assert pod_phase(k8s, name) == "Running"
            with pytest.raises(subprocess.TimeoutExpired):
                k8s.command("kubectl", "logs", name, timeout=2)
        with chaos.paused(k8s, "kube-apiserver"), pytest.raises(subprocess.TimeoutExpired):
            k8s.command("kubectl", "get", "pods", timeout=2)
        gate.touch()
        until(lambda: pod_phase(k8s, name) == "Succeeded", "the pod's end")
        k8s.command("kubectl", "delete", "pod", name)

    def test_apiserver_is_reached_through_the_proxy(self, k8s, tmp_path):
        server = k8s.command("kubectl", "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
        with DelayProxy(server.removeprefix("https://"), delay=0.02) as proxy:
            behind = chaos.kubeconfig_through(k8s.kubeconfig, proxy.port, tmp_path / "kubeconfig")
            assert "node1" in k8s.command("kubectl", "--kubeconfig", str(behind), "get", "nodes")
            assert proxy.total >= 1

    def test_only_the_apiserver_may_command_the_kubelet(self, k8s):
        node = k8s.command("kubectl", "get", "node", "node1", "-o", "json")
        status = json.loads(node)["status"]
        address = next(a["address"] for a in status["addresses"] if a["type"] == "InternalIP")
        port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"https://{address}:{port}/pods", context=ssl._create_unverified_context())


class TestDelayProxy:
    """On a server that sends back what it gets."""

    @pytest.fixture
    def echo(self):
        class Echo(socketserver.BaseRequestHandler):
            def handle(self):
                while data := self.request.recv(1 << 16):
                    self.request.sendall(data)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        with Server(("127.0.0.1", 0), Echo) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"127.0.0.1:{server.server_address[1]}"
            server.shutdown()

    def talk(self, proxy):
        return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)

    def test_bytes_are_late_but_whole(self, echo):
        sent = os.urandom(3_000_000)
        with DelayProxy(echo, delay=0.1) as proxy, self.talk(proxy) as client:
            begun = time.monotonic()
            client.sendall(sent[:10])
            assert client.recv(100) == sent[:10]
            assert time.monotonic() - begun >= 0.2
            sender = threading.Thread(target=lambda: (client.sendall(sent), client.shutdown(socket.SHUT_WR)))
            sender.start()
            got = b"".join(iter(lambda: client.recv(1 << 16), b""))
            sender.join()
            assert got == sent

    def test_stalled_connection_waits_and_goes_on(self, echo):
        with DelayProxy(echo) as proxy, self.talk(proxy) as client:
            proxy.stall()
            client.sendall(b"hello")
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.recv(10)
            proxy.resume()
            client.settimeout(5)
            assert client.recv(10) == b"hello"

    def test_connections_are_counted_cut_and_refused(self, echo):
        with DelayProxy(echo) as proxy, self.talk(proxy) as one, self.talk(proxy) as two:
            for client in (one, two):
                client.sendall(b"x")
                assert client.recv(1) == b"x"
            assert (proxy.open, proxy.peak, proxy.total) == (2, 2, 2)
            assert proxy.cut() == 2
            for client in (one, two):
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            assert proxy.open == 0
            proxy.refuse()
            # The reset may come as early as the end of connecting.
            with pytest.raises(ConnectionResetError), self.talk(proxy) as three:
                three.recv(1)
            proxy.accept()
            with self.talk(proxy) as four:
                four.sendall(b"x")
                assert four.recv(1) == b"x"
            assert proxy.total == 3


class TestLabItself:
    def test_postgres_comes_up_with_its_data_after_it_was_killed(self, postgres):
        with contextlib.closing(psycopg2.connect(postgres.postgres)) as connection, connection:
            connection.cursor().execute("create table if not exists kept (number int)")
        chaos.kill(postgres, "postgres")
        postgres.up("postgres")
        with contextlib.closing(psycopg2.connect(postgres.postgres)) as connection, connection.cursor() as cursor:
            cursor.execute("select count(*) from kept")

    def test_comes_up_after_everything_was_killed_and_the_machine_booted(self, slurm, docker_lab, postgres, k8s):
        lab = k8s
        lab.command("kubectl", "create", "configmap", "of-an-earlier-run")
        for daemon in (daemon for daemons in PARTS.values() for daemon in daemons):
            chaos.kill(lab, daemon)
            # After a boot the number in a pid file is anyone's.
            (lab.home / "run" / f"{daemon}.pid").write_text(f"{os.getpid()}\n")
        (lab.home / "run/boot").write_text("another boot\n")
        lab.up()
        assert "idle" in lab.command("sinfo", "-h", "-p", "debug", "-o", "%T")
        assert "python-lab" in lab.command("docker", "images")
        psycopg2.connect(lab.postgres).close()
        assert " Ready" in lab.command("kubectl", "get", "nodes")
        # A day of runs would leave a thousand ended pods, and a cluster that answers late.
        assert "of-an-earlier-run" not in lab.command("kubectl", "get", "configmap")

    def test_comes_up_after_it_was_killed_on_its_way_up(self, slurm):
        slurm.down("slurm")
        env = {**os.environ, "NEMO_LAB": str(slurm.home), "NEMO_LAB_PORT_BASE": str(slurm.port_base)}
        up = subprocess.Popen(["bash", str(SCRIPT), "up", "slurm"], env=env, start_new_session=True)
        until(lambda: (slurm.home / "run/slurmctld.pid").exists(), "half of Slurm")
        os.killpg(up.pid, signal.SIGKILL)
        up.wait()
        slurm.up("slurm")
        assert "idle" in slurm.command("sinfo", "-h", "-p", "debug", "-o", "%T")

    def test_up_goes_on_with_a_paused_daemon(self, slurm):
        process = slurm.process("slurmctld")
        process.suspend()
        slurm.up("slurm")
        assert process.status() != psutil.STATUS_STOPPED

    def test_up_of_a_running_lab_starts_nothing(self, slurm):
        before = [slurm.process(daemon).pid for daemon in PARTS["slurm"]]
        slurm.up("slurm")
        assert [slurm.process(daemon).pid for daemon in PARTS["slurm"]] == before

    def test_failure_shows_the_end_of_the_daemons_log(self, tmp_path_factory):
        # A socket's path has to be short.
        home = Path(f"/tmp/nl{os.getpid()}")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            base = taken.getsockname()[1] - 3  # MariaDB's is the fourth
            lab = Lab(home, port_base=base)
            try:
                with pytest.raises(LabError, match=r"(?s)mariadbd ended at its start.*in use"):
                    lab.up("slurm")
            finally:
                lab.down("slurm")
                shutil.rmtree(home)

    def test_down_ends_what_up_started(self, lab_to_break):
        lab_to_break.up("slurm")
        processes = [lab_to_break.process(daemon) for daemon in PARTS["slurm"]]
        lab_to_break.down("slurm")
        assert all(chaos.gone(process) for process in processes)
        assert lab_to_break.env["SLURM_CONF"].startswith(str(lab_to_break.home))


class TestFixtures:
    def test_each_one_is_a_way_to_a_back_end_that_answers(self, lab_docker, lab_kubeconfig, lab_slurm, lab_ssh):
        assert lab_docker
        assert lab_kubeconfig
        assert lab_ssh is lab_slurm
        assert lab_ssh.run("srun --version").startswith("slurm")

    @pytest.mark.parametrize("fixture", ["lab_docker", "lab_kubeconfig", "lab_ssh", "lab_slurm"])
    def test_missing_back_end_fails_the_test_and_says_what_to_do(self, fixture, tmp_path):
        outcome = self.run_with(fixture, tmp_path)
        assert "1 error" in outcome
        assert "bring it up with `make lab`, or set" in outcome

    def test_tests_on_it_can_be_left_out(self, tmp_path):
        assert "1 deselected" in self.run_with("lab_slurm", tmp_path, "-m", "not lab")

    def run_with(self, fixture, tmp_path, *options):
        """Runs a test that uses the fixture, where there is no lab."""
        (tmp_path / "test_one.py").write_text(f"def test_one({fixture}): pass")
        ours = ("DOCKER_HOST", "KUBECONFIG", "NEMO_TEST_SSH", "NEMO_TEST_SSH_KEY", "NEMO_LAB_AUTO")
        env = {name: value for name, value in os.environ.items() if name not in ours}
        # On ports where nothing listens.
        env.update(NEMO_LAB=str(tmp_path / "nowhere"), NEMO_LAB_PORT_BASE="31900", PYTHONPATH=str(SCRIPT.parents[1]))
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "lab.fixtures",
            "-p",
            "no:cacheprovider",
            *options,
            str(tmp_path),
        ]
        return subprocess.run(words, env=env, cwd=tmp_path, text=True, capture_output=True, check=False).stdout
