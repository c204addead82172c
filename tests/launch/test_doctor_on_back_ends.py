"""What the doctor says of each back-end of the lab, and of what is broken there."""

import base64
import dataclasses
import json
import shutil
import uuid

import kubernetes
import pytest
import yaml
from lab.connections import ssh_connection
from lab.logins import own_login

from nemo_airflow.cli.doctor import _executor
from nemo_airflow.doctor.back_ends import examine_executor


def examine(**executor):
    """The findings for an executor by their names, as the command has them."""
    return {finding.name: finding for finding in examine_executor(_executor(yaml.safe_dump(executor)))}


def fails(findings):
    return [name for name, finding in findings.items() if finding.verdict == "fail"]


@pytest.fixture
def login(lab, lab_slurm, monkeypatch):
    with own_login(lab, lab_slurm) as login:
        monkeypatch.setenv("AIRFLOW_CONN_EXAMINED", ssh_connection(login.ssh))
        yield login


def test_a_cluster_that_is_well_has_nothing_to_mend(login):
    found = examine(kind="slurm", ssh_conn_id="examined")
    assert not fails(found)
    assert {name for name, each in found.items() if each.verdict == "ok"} >= {
        "reached", "start-up files", "python", "folder of jobs", "clock", "sbatch", "queue", "accounting",
        "partition, account and resources",
    }  # fmt: skip
    assert "to start at" in found["partition, account and resources"].said
    assert not (login.home / ".nemo_airflow").exists()  # it was looked at, and not made


BROKEN = {
    "python": {"python": "python9"},
    "folder of jobs": {"root": "/proc/none"},
    "partition, account and resources": {"partition": "nope"},
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_an_executor_asks_for_and_is_not_there_fails(login, name):
    found = examine(kind="slurm", ssh_conn_id="examined", **BROKEN[name])
    assert fails(found) == [name]
    assert found[name].fix


def test_an_account_that_is_not_ours_fails(login):
    found = examine(kind="slurm", ssh_conn_id="examined", account="others")
    assert "Invalid account" in found["partition, account and resources"].said


REPLACED = {
    "accounting": ("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1", "warn"),
    "queue": ("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1", "fail"),
    "sbatch": ("sbatch", "exit 127", "fail"),
    "clock": ("date", 'case "$*" in +%s) echo $(($($program +%s) - 90));; *) exec $program "$@";; esac', "warn"),
}


@pytest.mark.parametrize("name", REPLACED)
def test_what_is_broken_on_the_host_is_found(login, name):
    program, script, verdict = REPLACED[name]
    login.replace(program, script)
    finding = examine(kind="slurm", ssh_conn_id="examined")[name]
    assert finding.verdict == verdict
    assert finding.fix


def test_a_program_that_jobs_need_and_is_not_there_fails(login):
    there = "sh bash env id uname date dirname df awk find sha256sum python3 tail head grep tr cat mktemp rm"
    login.write("few/.keep", "")
    for program in there.split():
        (login.home / "few" / program).symlink_to(shutil.which(program, path="/usr/bin:/bin"))
    login.write(".bashrc", "export PATH=~/few\n")
    found = examine(kind="ssh", ssh_conn_id="examined")
    assert fails(found) == ["programs"]
    assert found["programs"].said == "tar not found"


def test_start_up_files_that_print_are_told(login):
    login.write(".bashrc", "export PATH=~/bin:$PATH\necho Welcome to the cluster\n")
    finding = examine(kind="ssh", ssh_conn_id="examined")["start-up files"]
    assert finding.verdict == "warn"
    assert "breaks scp" in finding.said


def test_a_login_that_is_refused_and_a_host_key_that_is_another_fail(login, monkeypatch):
    login.refuse()
    [finding] = examine(kind="ssh", ssh_conn_id="examined").values()
    assert finding.verdict == "fail"
    other = dataclasses.replace(login.ssh, host_key=f"ssh-ed25519 {base64.b64encode(b'x' * 51).decode()}")
    monkeypatch.setenv("AIRFLOW_CONN_EXAMINED", ssh_connection(other))
    [finding] = examine(kind="ssh", ssh_conn_id="examined").values()
    assert finding.verdict == "fail"


def test_a_grid_engine_verifies_the_job_script(lab_gridengine, ssh_conn_id):
    where = {"kind": "gridengine", "ssh_conn_id": ssh_conn_id, "settings": lab_gridengine}
    assert not fails(examine(**where))
    wrong = examine(**where, queue="nope.q")
    assert fails(wrong) == ["queue and resources"]


def test_a_daemon_without_the_image_or_a_gpu_says_so(lab_docker, lab_image):
    where = {"kind": "docker", "docker_url": lab_docker}
    assert not fails(examine(**where, container_image=lab_image))
    absent = examine(**where, container_image="nowhere/none:1")
    assert absent["image"].verdict == "warn"
    assert absent["image"].fix == "docker pull nowhere/none:1"
    assert fails(examine(**where, container_image="nowhere/none:1", pull="never")) == ["image"]
    assert fails(examine(**where, container_image=lab_image, gpus_per_node=1)) == ["GPUs"]


def test_an_account_of_a_cluster_that_may_not_do_all_is_told_what_it_lacks(lab_kubeconfig, tmp_path):
    where = {"kind": "kubernetes", "container_image": "x", "namespace": "default"}
    assert not fails(examine(**where, config_file=str(lab_kubeconfig)))
    client = kubernetes.config.new_client_from_config(str(lab_kubeconfig))
    core, rbac = kubernetes.client.CoreV1Api(client), kubernetes.client.RbacAuthorizationV1Api(client)
    name = f"examined-{uuid.uuid4().hex[:8]}"
    rules = [
        {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "patch", "delete"]},
    ]
    core.create_namespaced_service_account("default", {"metadata": {"name": name}})
    rbac.create_namespaced_role("default", {"metadata": {"name": name}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": "default"}
    binding = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
    rbac.create_namespaced_role_binding("default", binding)
    token = core.create_namespaced_service_account_token(name, "default", {"spec": {}}).status.token
    config = {
        "clusters": [{"name": "c", "cluster": {"server": client.configuration.host, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
        "current-context": "x",
    }
    (tmp_path / "weak").write_text(json.dumps(config))
    found = examine(**where, config_file=str(tmp_path / "weak"))
    assert fails(found) == ["rights"]
    assert "may not get pods/exec, create pods/exec, create secrets in default" in found["rights"].said
    assert found["events"].verdict == "warn"
    config["users"][0]["user"]["token"] = "expired"
    (tmp_path / "weak").write_text(json.dumps(config))
    [finding] = examine(**where, config_file=str(tmp_path / "weak")).values()
    assert finding.verdict == "fail"
    assert "does not accept the credentials" in finding.said


def test_a_ray_cluster_that_answers_is_well(lab_ray):
    assert not fails(examine(kind="ray", address=lab_ray))
