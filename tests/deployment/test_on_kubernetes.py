"""What docker/helm-values.yaml names is there, and docker/kubernetes-rights.yaml gives the rights that jobs need."""

import contextlib
import json
import re
from importlib import import_module

import kubernetes
import pytest
import yaml
from compose_stack import ROOT

from nemo_airflow import KubernetesExecutor
from nemo_airflow.doctor.back_ends import examine_executor

VALUES = yaml.safe_load((ROOT / "docker/helm-values.yaml").read_text())
RIGHTS = list(yaml.safe_load_all((ROOT / "docker/kubernetes-rights.yaml").read_text()))
ENV = {each["name"]: each["value"] for each in VALUES["env"]}


def test_values_name_the_version_of_the_image_and_the_account_with_the_rights():
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert VALUES["airflowVersion"] == pinned["apache-airflow"]
    assert f"slim-{pinned['apache-airflow']}-" in (ROOT / "docker/Dockerfile").read_text()
    accounts = {VALUES[part]["serviceAccount"]["name"] for part in ("workers", "triggerer")}
    assert accounts == {each["metadata"]["name"] for each in RIGHTS if each["kind"] == "ServiceAccount"}


def test_classes_and_connections_that_values_name_are_there(monkeypatch):
    [bundle] = json.loads(ENV["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    module, _, name = bundle["classpath"].rpartition(".")
    repository = json.dumps({"conn_type": "git", "host": "https://git.invalid/project.git"})
    monkeypatch.setenv("AIRFLOW_CONN_PROJECT", repository)
    getattr(import_module(module), name)(name=bundle["name"], **bundle["kwargs"])
    conn_ids = {bundle["kwargs"]["git_conn_id"], re.match(r"s3://(\w+)@", ENV["NEMO_AIRFLOW_STORE"])[1]}
    assert {f"AIRFLOW_CONN_{each.upper()}" for each in conn_ids} == {each["envName"] for each in VALUES["secret"]}


@pytest.fixture
def namespace(lab_kubeconfig):
    """The namespace of the file, with what is in it; its name and a client of the administrator."""
    client = kubernetes.config.new_client_from_config(str(lab_kubeconfig))
    core = kubernetes.client.CoreV1Api(client)
    [name] = {each["metadata"]["namespace"] for each in RIGHTS}
    core.create_namespace({"metadata": {"name": name}})
    with contextlib.closing(client):
        kubernetes.utils.create_from_yaml(client, yaml_objects=RIGHTS)
        yield name, client
        core.delete_namespace(name)


def test_the_account_of_workers_may_do_all_that_jobs_need_and_no_more(namespace, tmp_path):
    name, client = namespace
    account = VALUES["workers"]["serviceAccount"]["name"]
    core = kubernetes.client.CoreV1Api(client)
    token = core.create_namespaced_service_account_token(account, name, {"spec": {}}).status.token
    config = {
        "clusters": [{"name": "c", "cluster": {"server": client.configuration.host, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": name}}],
        "current-context": "x",
    }
    (tmp_path / "config").write_text(json.dumps(config))
    where = KubernetesExecutor(container_image="x", namespace=name, config_file=str(tmp_path / "config"))
    findings = {finding.name: finding.verdict for finding in examine_executor(where)}
    assert findings["rights"] == "ok", findings
    assert "events" not in findings  # which is told where they may not be read
    with (
        contextlib.closing(kubernetes.config.new_client_from_config(str(tmp_path / "config"))) as weak,
        pytest.raises(kubernetes.client.ApiException, match="Forbidden"),
    ):
        kubernetes.client.CoreV1Api(weak).list_namespaced_pod("kube-system")
