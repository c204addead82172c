"""What goes wrong between us and one pod, or the whole cluster, while jobs are followed: their end alone ends that."""

import base64
import contextlib
import dataclasses
import datetime
import json
import uuid
from pathlib import Path

import docker
import kubernetes
import pytest
from aiohttp import web
from job_cases import Following, script_job, start, wait_until, waiting_job
from lab.answering_proxy import AnsweringProxy
from lab.holding_proxy import HoldingProxy

from nemo_airflow import blocking
from nemo_airflow.exceptions import AccessRefused
from nemo_airflow.executors.base import Cursor
from nemo_airflow.executors.kubernetes import KubernetesExecutor
from nemo_airflow.executors.seen import RUNNING
from nemo_airflow.job import JobState

PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}
SECRETS = {"apiGroups": [""], "resources": ["secrets", "pods/exec"], "verbs": ["*"]}
GO = "/told/go"
LOGS = {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}


@pytest.fixture(scope="module")
def api(lab_kubeconfig):
    """Another client than ours."""
    with kubernetes.config.new_client_from_config(lab_kubeconfig) as client:
        yield kubernetes.client.CoreV1Api(client)


@pytest.fixture(scope="module")
def namespace(api):
    name = f"nemo-troubles-{uuid.uuid4().hex[:8]}"
    api.create_namespace({"metadata": {"name": name}})
    yield name
    api.delete_namespace(name)


class Account:
    """A service account of its own, with rights that can be changed, and a token that can be renewed."""

    def __init__(self, api, namespace, folder, rules):
        self.api, self.namespace, self.name = api, namespace, f"weak-{uuid.uuid4().hex[:8]}"
        self.rbac = kubernetes.client.RbacAuthorizationV1Api(api.api_client)
        self.path = folder / f"kubeconfig-{self.name}"
        api.create_namespaced_service_account(namespace, {"metadata": {"name": self.name}})
        self.allow(*rules)
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": self.name}
        subject = {"kind": "ServiceAccount", "name": self.name, "namespace": namespace}
        binding = {"metadata": {"name": self.name}, "roleRef": role, "subjects": [subject]}
        self.rbac.create_namespaced_role_binding(namespace, binding)
        self.renew_token()

    def allow(self, *rules):
        """Replaces the account's Role, as an upgrade of a chart does."""
        with contextlib.suppress(kubernetes.client.ApiException):  # there is none at first
            self.rbac.delete_namespaced_role(self.name, self.namespace)
        self.rbac.create_namespaced_role(self.namespace, {"metadata": {"name": self.name}, "rules": list(rules)})

    def end_token(self):
        self.api.delete_namespaced_secret(self.secret, self.namespace)

    def renew_token(self):
        self.secret = f"{self.name}-{uuid.uuid4().hex[:8]}"
        metadata = {"name": self.secret, "annotations": {"kubernetes.io/service-account.name": self.name}}
        secret = {"metadata": metadata, "type": "kubernetes.io/service-account-token"}
        self.api.create_namespaced_secret(self.namespace, secret)

        def token():
            return (self.api.read_namespaced_secret(self.secret, self.namespace).data or {}).get("token")

        wait_until(token, "the account's token")
        host = self.api.api_client.configuration.host
        write_kubeconfig(self.path, host, base64.b64decode(token()).decode())


def write_kubeconfig(path, host, token):
    config = {
        "clusters": [{"name": "c", "cluster": {"server": host, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))


@pytest.fixture
def make_account(api, namespace, tmp_path):
    return lambda *rules: Account(api, namespace, tmp_path, rules)


@pytest.fixture
def executor(lab_kubeconfig, lab_image, namespace, tmp_path):
    return KubernetesExecutor(
        container_image=lab_image, config_file=lab_kubeconfig, namespace=namespace, grace=2, linger=5,
        volumes=({"name": "told", "hostPath": {"path": str(tmp_path)}},),
        volume_mounts=({"name": "told", "mountPath": "/told"},),
    )  # fmt: skip


@pytest.fixture
def untold(tmp_path):
    """The file that a ``waiting_job(GO)`` waits for."""
    return tmp_path / "go"


def test_log_of_one_pod_that_may_not_be_read_is_that_jobs_own_trouble(executor, make_account, untold):
    hidden, open_one = waiting_job(GO), script_job("echo seen")
    account = make_account(PODS, SECRETS, {**LOGS, "resourceNames": [open_one.key]})
    weak = dataclasses.replace(executor, config_file=str(account.path), linger=0)
    first, second = Following(weak, hidden), Following(weak, open_one)
    assert second.end().succeeded
    assert (second.lines, second.said) == (["seen"], [])
    first.wait_for_word("is forbidden")
    account.allow(PODS, SECRETS, LOGS)
    untold.touch()
    assert first.end().succeeded
    assert first.lines == ["begun", "end"]


def test_right_that_is_gone_for_a_while_ends_no_task(executor, make_account, untold):
    account = make_account(PODS, SECRETS, LOGS)
    weak = dataclasses.replace(executor, config_file=str(account.path))
    following = Following(weak, waiting_job(GO))
    following.wait_for_line("begun")
    account.allow()
    following.wait_for_word("is forbidden")
    with pytest.raises(AccessRefused, match="give the account a Role that may list pods"):
        blocking.run(weak.connect().look([following.handle]))
    account.allow(PODS, SECRETS, LOGS)
    untold.touch()
    assert following.end().succeeded
    assert following.lines == ["begun", "end"]
    assert any("tells again" in said for said in following.said)


def test_token_that_ends_ends_no_task_and_a_new_one_is_taken(executor, make_account, untold):
    account = make_account(PODS, SECRETS, LOGS)
    weak = dataclasses.replace(executor, config_file=str(account.path))
    following = Following(weak, waiting_job(GO))
    following.wait_for_line("begun")
    account.end_token()
    following.wait_for_word("does not accept the credentials")
    account.renew_token()
    untold.touch()
    assert following.end().succeeded
    assert following.lines == ["begun", "end"]


def test_node_that_drops_packets_hides_neither_how_other_jobs_fare_nor_what_they_write(
    executor, lab_kubeconfig, tmp_path, untold
):
    client = kubernetes.config.new_client_from_config(lab_kubeconfig)
    (token,) = client.configuration.api_key.values()
    with HoldingProxy(client.configuration.host) as proxy:
        write_kubeconfig(tmp_path / "kubeconfig", proxy.url, token.removeprefix("Bearer "))
        executor = dataclasses.replace(executor, config_file=str(tmp_path / "kubeconfig"), linger=0)
        silent = Following(executor, waiting_job(GO))
        silent.wait_for_line("begun")
        proxy.hold(f"/pods/{silent.job.key}/log")
        others = [Following(executor, script_job(f"sleep 1; echo {number}; exit {number}")) for number in range(3)]
        wait_until(lambda: proxy.waiting, "the log of the silent node to be asked for")
        for number, other in enumerate(others):
            assert (other.end().status.exit_code, other.lines) == (number, [str(number)])
            assert other.said == []
        untold.touch()
        silent.wait_for_word("does not give the log")
        assert proxy.waiting, "the log came after all"
        proxy.hold()
        assert silent.end().status.state is JobState.SUCCEEDED
        assert silent.lines == ["begun", "end"]


def test_release_asks_again_where_the_cluster_is_troubled_and_takes_a_pod_that_is_gone_for_released(
    executor, lab_kubeconfig, tmp_path
):
    client = kubernetes.config.new_client_from_config(lab_kubeconfig)
    (token,) = client.configuration.api_key.values()
    answers = ["cut", 500, 429, 503, 404]

    def answer(request):
        if not request.path.endswith("/exec"):
            return None
        status = answers.pop(0)
        if status == "cut":
            request.transport.close()
            return web.Response()
        return web.json_response({"message": "by the proxy"}, status=status)

    with AnsweringProxy(client.configuration.host) as proxy:
        write_kubeconfig(tmp_path / "kubeconfig", proxy.url, token.removeprefix("Bearer "))
        driver, handle = start(
            dataclasses.replace(executor, config_file=str(tmp_path / "kubeconfig")), script_job("sleep 600")
        )
        wait_until(lambda: blocking.run(driver.look([handle]))[handle.key].queue is RUNNING, "the pod to run")
        proxy.answer = answer
        blocking.run(driver.release([handle]))
        assert answers == []
        blocking.run(driver.cancel([handle]))
        blocking.run(driver.close())


def test_end_of_a_log_is_read_though_the_clock_of_its_node_was_set_back_meanwhile(executor, lab_docker):
    executor = dataclasses.replace(executor, linger=0)
    following = Following(executor, script_job("echo first; sleep 3; echo last"))
    assert following.end().succeeded
    driver, handle = executor.connect(), following.handle
    wait_until(lambda: not blocking.run(driver.look([handle]))[handle.key].is_alive, "the pod to end")
    with contextlib.closing(docker.DockerClient(base_url=lab_docker)) as client:
        names = {"label": [f"io.kubernetes.pod.name={handle.key}", "io.kubernetes.container.name=job"]}
        (container,) = client.containers.list(all=True, filters=names)
        path = Path(client.api.inspect_container(container.id)["LogPath"])
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    middle = next(number for number, entry in enumerate(entries) if entry["log"].startswith("last"))
    data = b"".join(chunk.data for chunk in blocking.run(driver.read([Cursor(handle)])))
    seen = data.index(b"last")  # the marks before that are known now
    for entry in entries[middle:]:
        earlier = datetime.datetime.fromisoformat(entry["time"][:19]) - datetime.timedelta(hours=2)
        entry["time"] = f"{earlier.isoformat()}.5Z"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    fresh = executor.connect()
    blocking.run(fresh.look([handle]))
    first = blocking.run(fresh.read([Cursor(handle, limit=seen)]))
    assert [chunk.data for chunk in first] == [data[:seen]]
    assert [chunk.data for chunk in blocking.run(fresh.read([Cursor(handle, seen)]))] == [data[seen:]]
