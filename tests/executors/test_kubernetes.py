"""What only Kubernetes does, on the lab's real cluster."""

import base64
import dataclasses
import json
import random
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import kubernetes
import pytest
from job_cases import follow, run, script_job, start, submit, wait_for_end, wait_for_output, wait_until

from nemo_airflow import blocking, settings
from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, SubmitError
from nemo_airflow.executors.kubernetes import KubernetesExecutor, manifest
from nemo_airflow.job import FailureKind, JobState, JobStatus
from nemo_airflow.packaging.archive import write_archive
from nemo_airflow.packaging.pattern import PatternPackager
from nemo_airflow.runner.outputs import COLLECTED
from nemo_airflow.store import PackageStore
from nemo_airflow.testing.services import service_of


@pytest.fixture(scope="module")
def api(lab_kubeconfig):
    """Another client than ours, to see with its own eyes what became of things."""
    with kubernetes.config.new_client_from_config(lab_kubeconfig) as client:
        yield kubernetes.client.CoreV1Api(client)


@pytest.fixture(scope="module")
def namespace(api):
    name = f"nemo-tests-{uuid.uuid4().hex[:8]}"
    api.create_namespace({"metadata": {"name": name}})
    yield name
    api.delete_namespace(name)


@pytest.fixture(autouse=True)
def lost_soon(monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_LOST_AFTER", "2")


@pytest.fixture
def executor(lab_kubeconfig, lab_image, namespace):
    return KubernetesExecutor(
        container_image=lab_image, config_file=lab_kubeconfig, namespace=namespace, grace=2, linger=20
    )


def pods_of(api, namespace, key):
    return api.list_namespaced_pod(namespace, label_selector=f"nemo-airflow.key={key}").items


def secrets_of(api, namespace, key):
    return api.list_namespaced_secret(namespace, label_selector=f"nemo-airflow.key={key}").items


def has_ended(pod):
    return pod.status.phase in ("Succeeded", "Failed")


# Why a job ends


def test_more_memory_than_the_limit(executor):
    executor = dataclasses.replace(executor, memory="48Mi")
    plan = {"version": 1, "root": {"_target_": "operator:mul", "_args_": ["x", 200 << 20]}}
    handle = submit(executor, dataclasses.replace(script_job(""), plan=plan, allow=("operator:mul",)))
    outcome, _, _ = follow(executor, handle)
    assert outcome.status.state is JobState.FAILED
    assert outcome.status.failure is FailureKind.OUT_OF_MEMORY


def test_image_that_is_not_there_fails_soon_and_holds_nothing(executor, api, namespace):
    executor = dataclasses.replace(executor, container_image="nemo-test.invalid/no-such-image:1")
    driver, handle = start(executor, script_job("true"))
    status = wait_for_end(driver, handle)  # it waits for a minute, the pod's own limit is an hour
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.IMAGE)
    assert "no-such-image" in status.reason
    wait_until(lambda: all(map(has_ended, pods_of(api, namespace, handle.key))), "the pod to be over")
    assert blocking.run(service_of(executor.connect()).status([handle]))[handle.key] == status


def test_image_name_that_is_none_fails_at_once(executor):
    executor = dataclasses.replace(executor, container_image="Not An Image")
    outcome, _, _ = run(executor, "true")
    assert (outcome.status.failure, "InvalidImageName" in outcome.message) == (FailureKind.IMAGE, True)


def test_interpreter_that_is_not_in_the_image(executor):
    outcome, _, _ = run(dataclasses.replace(executor, python="python7"), "true")
    assert outcome.status.failure is FailureKind.IMAGE
    assert "python7" in outcome.message


def test_more_than_any_node_has_is_given_up(executor, api, namespace):
    executor = dataclasses.replace(executor, cpus=1000, pending_timeout=3600)
    driver, handle = start(executor, script_job("true"))
    waiting = blocking.run(service_of(driver).status([handle]))[handle.key]
    assert waiting.state is JobState.PENDING
    (pod,) = pods_of(api, namespace, handle.key)
    assert pod.metadata.annotations[manifest.PENDING_TIMEOUT] == "3600"
    # Now shorter than it has waited, however long the look took.
    change = {"metadata": {"annotations": {manifest.PENDING_TIMEOUT: "1"}}}
    api.patch_namespaced_pod(pod.metadata.name, namespace, change)
    status = wait_for_end(driver, handle)
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.QUOTA)
    assert "Insufficient cpu" in status.reason
    assert pods_of(api, namespace, handle.key) == []
    # Another process, that has not seen it happen, knows as well.
    assert blocking.run(service_of(executor.connect()).status([handle]))[handle.key] == status
    assert blocking.run(executor.connect().find([handle.key])) == {handle.key: handle}
    blocking.run(driver.remove([handle]))
    assert secrets_of(api, namespace, handle.key) == []


def test_pod_that_waits_says_why(executor):
    executor = dataclasses.replace(executor, node_selector={"no-such": "label"})
    driver, handle = start(executor, script_job("true"))

    def said():
        return "didn't match" in blocking.run(service_of(driver).status([handle]))[handle.key].reason

    wait_until(said, "the reason")
    blocking.run(driver.cancel([handle]))
    assert wait_for_end(driver, handle).state is JobState.CANCELLED


def test_secret_that_is_not_there(executor):
    executor = dataclasses.replace(executor, secret_env={"TOKEN": ("no-such-secret", "token")})
    outcome, _, _ = run(executor, "true")
    assert outcome.status.failure is FailureKind.USER_ERROR
    assert 'secret "no-such-secret" not found' in outcome.message


def test_volume_that_is_not_there_is_named(executor):
    executor = dataclasses.replace(
        executor,
        volumes=[{"name": "data", "configMap": {"name": "no-such-map"}}],
        volume_mounts=[{"name": "data", "mountPath": "/data"}],
        pending_timeout=4,
    )
    outcome, _, _ = run(executor, "true")
    assert 'configmap "no-such-map" not found' in outcome.message


def test_deadline_of_the_pod_is_a_time_out(executor):
    executor = dataclasses.replace(executor, pod_template={"spec": {"activeDeadlineSeconds": 2}})
    driver, handle = start(executor, script_job("sleep 600"))
    assert wait_for_end(driver, handle).failure is FailureKind.TIMEOUT


# A pod that somebody deletes


def test_deleted_pod_is_lost(executor, api, namespace):
    driver, handle = start(executor, script_job("echo started; sleep 600"))
    wait_for_output(driver, handle, b"started")
    api.delete_namespaced_pod(handle.key, namespace, grace_period_seconds=0)
    assert follow(executor, handle)[0].status.state is JobState.LOST


def test_ended_job_stays_ended_for_those_who_saw_it_when_its_pod_is_deleted(executor, api, namespace):
    driver, handle = start(executor, script_job("true"))
    assert wait_for_end(driver, handle).state is JobState.SUCCEEDED
    api.delete_namespaced_pod(handle.key, namespace, grace_period_seconds=0)
    wait_until(lambda: not pods_of(api, namespace, handle.key), "the pod to be gone")
    assert wait_for_end(driver, handle).state is JobState.SUCCEEDED
    wait_until(lambda: not secrets_of(api, namespace, handle.key), "the secret to go with it")


# Refusals


def test_namespace_that_is_not_there(executor):
    with pytest.raises(SubmitError, match='namespaces "no-such-namespace" not found'):
        start(dataclasses.replace(executor, namespace="no-such-namespace"), script_job("true"))


@pytest.mark.parametrize("rights", [[], [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}]])
def test_namespace_without_rights_is_refused_and_leaves_nothing(
    executor, api, lab_kubeconfig, namespace, tmp_path, rights
):
    seen = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "delete"]}
    token = token_with(api, namespace, [*rights, seen] if rights else [])
    job = script_job("true")
    weak = dataclasses.replace(
        executor, config_file=kubeconfig(tmp_path, api.api_client.configuration.host, token=token)
    )
    with pytest.raises(SubmitError, match=f'is forbidden: .* in the namespace "{namespace}"') as caught:
        start(weak, job)
    assert caught.value.kind == FailureKind.USER_ERROR
    assert "\n" not in str(caught.value)
    assert secrets_of(api, namespace, job.key) == []


def token_with(api, namespace, rules):
    """Returns the token of a new service account with these rights in the namespace."""
    name = f"weak-{uuid.uuid4().hex[:8]}"
    api.create_namespaced_service_account(namespace, {"metadata": {"name": name}})
    rbac = kubernetes.client.RbacAuthorizationV1Api(api.api_client)
    rbac.create_namespaced_role(namespace, {"metadata": {"name": name}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    rbac.create_namespaced_role_binding(namespace, {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
    secret = {"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": name}}}
    api.create_namespaced_secret(namespace, {**secret, "type": "kubernetes.io/service-account-token"})
    wait_until(lambda: (api.read_namespaced_secret(name, namespace).data or {}).get("token"), "the account's token")
    return base64.b64decode(api.read_namespaced_secret(name, namespace).data["token"]).decode()


def test_manifest_that_is_not_valid_leaves_nothing_behind(executor, api, namespace):
    job = script_job("true")
    with pytest.raises(SubmitError, match=r"priorityClass|PriorityClass"):
        start(dataclasses.replace(executor, priority_class="no-such-class"), job)
    with pytest.raises(SubmitError, match="quantities must match"):
        start(dataclasses.replace(executor, memory="a lot"), job)
    assert secrets_of(api, namespace, job.key) == []


def test_exceeded_quota_is_named_and_leaves_nothing_behind(executor, api, namespace):
    api.create_namespaced_resource_quota(namespace, {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}})
    job = script_job("true")
    try:
        wait_until(lambda: api.read_namespaced_resource_quota("few", namespace).status.hard, "the quota to be known")
        with pytest.raises(SubmitError, match="exceeded quota: few") as caught:
            start(executor, job)
    finally:
        api.delete_namespaced_resource_quota("few", namespace)
    assert caught.value.kind == FailureKind.QUOTA
    assert secrets_of(api, namespace, job.key) == []
    wait_until(lambda: not api.list_namespaced_resource_quota(namespace).items, "the quota to be gone")


def test_more_than_a_limit_range_allows_is_named_and_not_worth_a_retry(executor, api, namespace):
    limits = {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]}
    api.create_namespaced_limit_range(namespace, {"metadata": {"name": "small"}, "spec": limits})
    try:
        with pytest.raises(SubmitError, match="maximum memory usage per Container is 64Mi") as caught:
            start(dataclasses.replace(executor, memory="128Mi"), script_job("true"))
    finally:
        api.delete_namespaced_limit_range("small", namespace)
    assert caught.value.kind == FailureKind.USER_ERROR


# Steps of a submit


def test_submit_goes_on_after_each_step_of_one_that_was_killed(executor, api, namespace):
    for steps in (1, 2, 3):
        job = script_job("echo done")
        request = dataclasses.replace(executor, nodes=2).render(job) if steps == 3 else executor.render(job)
        driver = executor.connect()
        api.create_namespaced_secret(namespace, {**request.payload["secrets"][0], "data": secret_data(driver, request)})
        if steps > 1:
            api.create_namespaced_pod(namespace, request.payload["pods"][-1])
        if steps != 2:  # the first pod is not there yet
            assert blocking.run(driver.find([job.key])) == {}
        handle = blocking.run(driver.submit(request))
        assert blocking.run(driver.submit(request)) == handle
        outcome, lines, _ = follow(executor, handle)
        assert (outcome.succeeded, lines) == (True, ["done"])
        (secret,) = secrets_of(api, namespace, job.key)
        assert secret.metadata.owner_references[0].uid == handle.id
        blocking.run(driver.cancel([handle]))


def secret_data(driver, request):
    from nemo_airflow.executors.kubernetes.record import contents

    return {"bundle.tar.gz": contents(request, with_package=True)[0]}


def test_secret_of_a_removed_job_is_not_used_for_the_next_one(executor, api, namespace):
    job = script_job("echo done")
    request = executor.render(job)
    owner = {"apiVersion": "v1", "kind": "Pod", "name": job.key, "uid": str(uuid.uuid4())}
    secret = {**request.payload["secrets"][0], "data": {"bundle.tar.gz": base64.b64encode(b"old").decode()}}
    secret["metadata"] = {**secret["metadata"], "ownerReferences": [owner]}
    api.create_namespaced_secret(namespace, secret)
    handle = submit(executor, job)
    assert follow(executor, handle)[0].succeeded


def test_pod_of_somebody_else_is_not_taken_for_the_job(executor, api, namespace):
    job = script_job("true")
    pod = {"metadata": {"name": job.key}, "spec": {"containers": [{"name": "c", "image": executor.container_image}]}}
    api.create_namespaced_pod(namespace, pod)
    with pytest.raises(SubmitError, match=f"pod {job.key} exists and does not belong to job"):
        start(executor, job)
    api.delete_namespaced_pod(job.key, namespace, grace_period_seconds=0)


# Packages


@pytest.fixture
def big_package(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path))
    return write_archive({"big.bin": random.Random(0).randbytes(60 << 20)}, PackageStore(settings.packages_folder()))


def test_large_package_is_sent_into_the_pod(executor, big_package):
    job = script_job("stat -c %s big.bin; sha256sum big.bin", package=big_package)
    driver = executor.connect()
    begun = time.monotonic()
    handle = blocking.run(driver.submit(executor.render(job)))
    seconds = time.monotonic() - begun
    print(f"{big_package.size / 2**20 / seconds:.0f} MiB/s with the start of the pod")
    assert blocking.run(driver.submit(executor.render(job))) == handle
    outcome, lines, _ = follow(executor, handle)
    assert outcome.succeeded
    assert lines[0] == str(60 << 20)


@pytest.fixture
def package_of_several_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path))
    return write_archive({"big.bin": random.Random(0).randbytes(2_500_000)}, PackageStore(settings.packages_folder()))


def test_package_of_some_megabytes_comes_in_several_secrets_that_go_with_the_job(
    executor, api, namespace, package_of_several_secrets
):
    job = script_job("stat -c %s big.bin", package=package_of_several_secrets)
    driver, handle = start(executor, job)
    assert blocking.run(driver.submit(executor.render(job))) == handle
    outcome, lines, _ = follow(executor, handle)
    assert (outcome.succeeded, lines) == (True, ["2500000"])
    assert len(secrets_of(api, namespace, job.key)) == 4
    wait_until(lambda: all(map(has_ended, pods_of(api, namespace, job.key))), "the pod to end")
    blocking.run(driver.remove([handle]))
    wait_until(lambda: not secrets_of(api, namespace, job.key), "the secrets to go")


def test_package_of_some_megabytes_holds_no_worker_until_its_pod_has_room(executor, package_of_several_secrets):
    executor = dataclasses.replace(executor, node_selector={"no-such": "label"})
    driver, handle = start(executor, script_job("true", package=package_of_several_secrets))
    assert blocking.run(service_of(driver).status([handle]))[handle.key].state is JobState.PENDING
    blocking.run(driver.cancel([handle]))
    assert wait_for_end(driver, handle).state is JobState.CANCELLED


def test_part_of_a_package_that_an_earlier_job_left_is_made_anew(executor, api, namespace, package_of_several_secrets):
    job = script_job("stat -c %s big.bin", package=package_of_several_secrets)
    owner = {"apiVersion": "v1", "kind": "Secret", "name": job.key, "uid": str(uuid.uuid4())}
    part = executor.render(job).payload["secrets"][1]
    part = {**part, "metadata": {**part["metadata"], "ownerReferences": [owner]}, "data": {}}
    api.create_namespaced_secret(namespace, part)
    handle = submit(executor, job)
    assert follow(executor, handle)[1] == ["2500000"]


def test_both_archives_of_large_changes_are_sent_into_the_pod(executor, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    code = tmp_path / "code"
    code.mkdir()
    (code / "big.bin").write_bytes(random.Random(0).randbytes(8 << 20))
    packager = PatternPackager(path=str(code))
    packager.package(PackageStore(settings.packages_folder()))
    (code / "note.txt").write_text("changed")
    changed = packager.package(PackageStore(settings.packages_folder()))
    assert changed.base
    job = script_job("cat note.txt; echo; stat -c %s big.bin", package=changed)
    handle = blocking.run(executor.connect().submit(executor.render(job)))
    outcome, lines, _ = follow(executor, handle)
    assert outcome.succeeded
    assert lines == ["changed", str(8 << 20)]


def test_job_with_a_large_uncommitted_change_runs(executor, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    archive = write_archive({"data.npy": random.Random(1).randbytes(700_000)}, PackageStore(settings.packages_folder()))
    patch = random.Random(2).randbytes(500_000).hex()  # as of a binary file
    package = dataclasses.replace(archive, dirty=True, patch=patch)
    outcome, lines, _ = run(executor, "stat -c %s data.npy", package=package)
    assert outcome.succeeded
    assert lines == ["700000"]


def test_package_is_sent_into_the_pod_where_the_config_leaves_no_room_for_it(executor, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path))
    files = {"big.bin": random.Random(0).randbytes(700_000)}
    package = write_archive(files, PackageStore(settings.packages_folder()))
    text = f"stat -c %s big.bin # {random.Random(0).randbytes(400_000).hex()}"
    outcome, lines, _ = run(executor, text, package=package)
    assert outcome.succeeded
    assert lines == ["700000"]


def test_config_that_no_secret_holds_is_named_with_what_to_do(executor):
    message = r"a Secret of Kubernetes holds 1048576: the largest is job\.json \(the config, the environment\)"
    with pytest.raises(SubmitError, match=message):
        start(executor, script_job(f"# {random.Random(0).randbytes(1_500_000).hex()}"))


def test_submit_that_was_killed_while_it_sent_the_package_is_done_again(executor, api, namespace, big_package):
    job = script_job("stat -c %s big.bin", package=big_package)
    request = executor.render(job)
    driver = executor.connect()
    from nemo_airflow.executors.kubernetes.record import contents

    data = {"bundle.tar.gz": contents(request, with_package=False)[0]}
    api.create_namespaced_secret(namespace, {**request.payload["secrets"][0], "data": data})
    api.create_namespaced_pod(namespace, request.payload["pods"][0])
    wait_until(lambda: pods_of(api, namespace, job.key)[0].status.phase == "Running", "the pod to run")
    assert blocking.run(driver.find([job.key])) == {}
    handle = blocking.run(driver.submit(request))
    assert blocking.run(driver.find([job.key])) == {job.key: handle}
    assert follow(executor, handle)[1] == [str(60 << 20)]


def test_large_package_of_a_pod_that_cannot_start_is_refused(executor, api, namespace, big_package):
    executor = dataclasses.replace(executor, cpus=1000, pending_timeout=2)
    job = script_job("true", package=big_package)
    with pytest.raises(SubmitError, match="Insufficient cpu") as caught:
        start(executor, job)
    assert caught.value.kind == FailureKind.QUOTA
    assert pods_of(api, namespace, job.key) == secrets_of(api, namespace, job.key) == []


# What a pod can be given


def test_secrets_by_reference(executor, api, namespace):
    data = {"token": base64.b64encode(b"s3cret value").decode()}
    api.create_namespaced_secret(namespace, {"metadata": {"name": "login"}, "data": data})
    executor = dataclasses.replace(executor, secret_env={"THE_TOKEN": ("login", "token")}, env_from=["login"])
    outcome, lines, _ = run(executor, 'echo "${#THE_TOKEN} ${#token}"')
    assert (outcome.succeeded, lines) == (True, ["12 12"])
    assert "s3cret" not in executor.render(script_job("true")).to_text()


def test_template_shared_memory_and_user_without_rights(executor, api, namespace):
    executor = dataclasses.replace(
        executor,
        shm_size="128Mi",
        labels={"team": "vision"},
        security_context={"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
        pod_security_context={"runAsUser": 1234, "runAsGroup": 1234},
        pod_template={"spec": {"containers": [{"name": "job", "env": [{"name": "EXTRA", "value": "from template"}]}]}},
    )
    handle = submit(executor, script_job('echo "$EXTRA" $(id -u); df /dev/shm | tail -1 | cut -d" " -f1'))
    outcome, lines, _ = follow(executor, handle)
    assert (outcome.succeeded, lines) == (True, ["from template 1234", "tmpfs"])
    (pod,) = pods_of(api, namespace, handle.key)
    assert pod.metadata.labels["team"] == "vision"


def test_pod_has_what_init_containers_prepare_and_its_own_names(executor):
    shared = [{"name": "data", "mountPath": "/data"}]
    prepare = {
        "name": "prepare", "image": executor.container_image, "volumeMounts": shared,
        "command": ["sh", "-c", "echo prepared >/data/note"],
    }  # fmt: skip
    executor = dataclasses.replace(
        executor,
        volumes=[{"name": "data", "emptyDir": {}}], volume_mounts=shared, init_containers=[prepare],
        dns_policy="None", dns_config={"nameservers": ["192.0.2.53"]},
        host_aliases=[{"ip": "192.0.2.7", "hostnames": ["store"]}],
    )  # fmt: skip
    outcome, lines, _ = run(executor, "cat /data/note; grep nameserver /etc/resolv.conf; grep -o store /etc/hosts")
    assert outcome.succeeded
    assert lines == ["prepared", "nameserver 192.0.2.53", "store"]


def test_sidecar_that_does_not_end_is_ended(executor, api, namespace):
    sidecar = {"name": "proxy", "image": executor.container_image, "command": ["sleep", "3600"]}
    executor = dataclasses.replace(executor, pod_template={"spec": {"containers": [sidecar]}})
    driver, handle = start(executor, script_job("exit 3"))
    assert wait_for_end(driver, handle).exit_code == 3
    wait_until(lambda: has_ended(pods_of(api, namespace, handle.key)[0]), "the sidecar to end")
    assert blocking.run(service_of(executor.connect()).status([handle]))[handle.key].exit_code == 3


# Groups of pods

_MEET = """
exec python3 - <<'END'
import os, socket, time
rank, port = int(os.environ["NODE_RANK"]), int(os.environ["MASTER_PORT"])
if rank == 0:
    server = socket.create_server(("0.0.0.0", port))
    said = []
    for _ in range(int(os.environ["NNODES"]) - 1):
        client, _ = server.accept()
        said.append(client.recv(100).decode())
    print(sorted(said))
else:
    while True:
        try:
            client = socket.create_connection((os.environ["MASTER_ADDR"], port))
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    client.sendall(f"rank {rank} on {socket.gethostname()[-2:]}".encode())
END
"""


def test_pods_of_a_group_find_each_other(executor, api, namespace):
    executor = dataclasses.replace(executor, nodes=3)
    driver, handle = start(executor, script_job(_MEET))
    outcome, lines, _ = follow(executor, handle)
    assert (outcome.succeeded, lines) == (True, ["['rank 1 on -1', 'rank 2 on -2']"])
    assert wait_for_end(driver, handle).state is JobState.SUCCEEDED
    blocking.run(driver.remove([handle]))
    assert pods_of(api, namespace, handle.key) == []


def test_samples_of_all_pods_of_a_group_are_on_the_jobs_stream(executor, api, namespace):
    executor = dataclasses.replace(executor, nodes=2)
    driver, handle = start(executor, script_job("sleep 600", sample_interval=0.5))
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(follow, executor, handle)  # who looks at it brings the second pod its address
        for node in range(2):
            wait_for_output(driver, handle, b'"node":%d,"values":{"' % node)
        blocking.run(driver.cancel([handle]))
        assert following.result().outcome.status.state is JobState.CANCELLED
    blocking.run(driver.remove([handle]))


def test_group_that_nobody_looks_at_when_it_starts_waits_for_that(executor, api, namespace, monkeypatch):
    monkeypatch.setattr(manifest, "UPLOAD_LIMIT", 2.0)
    executor = dataclasses.replace(executor, nodes=2, pending_timeout=60)
    handle = submit(executor, script_job(_MEET))

    def second_has_run_for_a_while():
        states = [status.state.running for pod in pods_of(api, namespace, handle.key)
                  for status in pod.status.container_statuses or ()]  # fmt: skip
        begun = [state.started_at.timestamp() for state in states if state]
        return len(begun) == 2 and time.time() - max(begun) > 5

    wait_until(second_has_run_for_a_while, "the pods to wait")
    assert follow(executor, handle)[1] == ["['rank 1 on -1']"]


def test_pod_of_a_group_that_fails_ends_the_others(executor, api, namespace):
    executor = dataclasses.replace(executor, nodes=2)
    driver, handle = start(executor, script_job('echo "rank $NODE_RANK"; [ $NODE_RANK = 0 ] && sleep 600; exit 7'))
    _, lines, _ = follow(executor, handle)
    status = wait_for_end(driver, handle)
    assert (status.state, status.exit_code) == (JobState.FAILED, 7)
    assert f"pod {handle.key}-1" in status.reason
    assert lines == ["rank 0"]
    assert all(map(has_ended, pods_of(api, namespace, handle.key)))


def test_group_is_cancelled_as_a_whole(executor, api, namespace):
    executor = dataclasses.replace(executor, nodes=2)
    driver, handle = start(executor, script_job("echo started; sleep 600"))
    wait_for_output(driver, handle, b"started")
    blocking.run(driver.cancel([handle]))
    assert follow(executor, handle)[0].status.state is JobState.CANCELLED
    wait_until(lambda: all(map(has_ended, pods_of(api, namespace, handle.key))), "all pods to end")


def test_group_ends_when_all_its_pods_have(executor, api, namespace, tmp_path):
    executor = dataclasses.replace(executor, nodes=2)
    text = "[ $NODE_RANK = 0 ] || { sleep 4; touch $NEMO_AIRFLOW_OUTPUT_DIR/late; }"
    driver, handle = start(executor, script_job(text))
    assert follow(executor, handle)[0].succeeded
    assert '"type":"end"' in api.read_namespaced_pod_log(f"{handle.key}-1", namespace)
    assert [str(path) for path in blocking.run(driver.collect(handle, tmp_path))] == ["node-1/late"]


def test_others_start_also_where_the_first_pod_has_ended_before_anybody_looked(executor, api, namespace):
    driver, handle = start(dataclasses.replace(executor, nodes=2), script_job("true"))

    def has_ended_its_part():
        try:
            return '"type":"end"' in api.read_namespaced_pod_log(f"{handle.key}-0", namespace)
        except kubernetes.client.ApiException:  # it has not started yet
            return False

    wait_until(has_ended_its_part, "the first pod to end its part")
    first = JobStatus(JobState.SUCCEEDED, 0)
    wait_until(lambda: blocking.run(driver.rest(handle, first)) == first, "the second pod to end", 300)
    blocking.run(driver.release([handle]))


def test_pods_of_a_group_are_one_group_to_a_queue(executor, api, namespace):
    driver, handle = start(dataclasses.replace(executor, nodes=2, queue="gpus"), script_job("sleep 600"))
    for pod in pods_of(api, namespace, handle.key):
        assert pod.metadata.labels["kueue.x-k8s.io/queue-name"] == "gpus"
        assert pod.metadata.labels["kueue.x-k8s.io/pod-group-name"] == handle.key
        assert pod.metadata.annotations["kueue.x-k8s.io/pod-group-total-count"] == "2"
        assert pod.metadata.annotations["kueue.x-k8s.io/retriable-in-group"] == "false"
    blocking.run(driver.cancel([handle]))
    alone = dataclasses.replace(executor, queue="gpus").render(script_job("true")).payload["pods"][0]["metadata"]
    assert alone["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert not [name for name in (*alone["labels"], *alone["annotations"]) if "group" in name]


def test_pod_that_fails_after_the_first_has_succeeded_fails_the_group(executor):
    executor = dataclasses.replace(executor, nodes=2)
    outcome, _, said = run(executor, "[ $NODE_RANK = 0 ] || { sleep 6; exit 9; }")
    assert (outcome.status.state, outcome.status.exit_code) == (JobState.FAILED, 9)
    assert "others still run" in " ".join(said)
    assert "-1: " in outcome.message


def test_pod_that_somebody_deletes_after_the_first_has_succeeded_loses_the_group(executor, api, namespace):
    executor = dataclasses.replace(executor, nodes=2)
    handle = submit(executor, script_job("[ $NODE_RANK = 0 ] || sleep 600"))
    wait_until(lambda: any(map(has_ended, pods_of(api, namespace, handle.key))), "the first pod to end")
    api.delete_namespaced_pod(f"{handle.key}-1", namespace, grace_period_seconds=0)
    assert follow(executor, handle)[0].status.state is JobState.LOST


def test_others_are_watched_and_ended_also_when_the_first_pod_was_deleted(executor, api, namespace):
    executor = dataclasses.replace(executor, nodes=2, linger=0)
    driver, handle = start(executor, script_job("[ $NODE_RANK = 0 ] || sleep 600"))
    wait_until(lambda: any(map(has_ended, pods_of(api, namespace, handle.key))), "the first pod to end")
    api.delete_namespaced_pod(f"{handle.key}-0", namespace, grace_period_seconds=0)
    wait_until(lambda: len(pods_of(api, namespace, handle.key)) == 1, "the first pod to be gone")
    first = JobStatus(JobState.SUCCEEDED, 0)
    assert blocking.run(driver.rest(handle, first)) is None
    failed = JobStatus(JobState.FAILED, 7, FailureKind.USER_ERROR)
    assert blocking.run(driver.rest(handle, failed)) == failed
    wait_until(lambda: all(map(has_ended, pods_of(api, namespace, handle.key))), "the second pod to end")


def test_first_pod_that_fails_ends_the_others_while_it_waits_for_its_outputs_to_be_fetched(executor, api, namespace):
    executor = dataclasses.replace(executor, nodes=2, linger=600)
    text = "[ $NODE_RANK = 1 ] || { touch $NEMO_AIRFLOW_OUTPUT_DIR/f; exit 7; }; sleep 600"
    driver, handle = start(executor, script_job(text))
    assert follow(executor, handle)[0].status.exit_code == 7
    wait_until(lambda: any(map(has_ended, pods_of(api, namespace, handle.key))), "the second pod to end")
    blocking.run(driver.release([handle]))


def test_outputs_of_all_pods_of_a_group_are_collected(executor, tmp_path):
    executor = dataclasses.replace(executor, nodes=2)
    driver, handle = start(executor, script_job("echo $NODE_RANK >$NEMO_AIRFLOW_OUTPUT_DIR/shard"))
    assert follow(executor, handle)[0].succeeded
    assert [str(path) for path in blocking.run(driver.collect(handle, tmp_path))] == ["node-1/shard", "shard"]
    assert (tmp_path / "node-1" / "shard").read_text() == "1\n"


def second_pod_later(executor, seconds):
    later = {
        "name": "later",
        "image": executor.container_image,
        "command": ["sh", "-c", f"case $(hostname) in *-1) sleep {seconds} ;; esac"],
    }
    return dataclasses.replace(executor, nodes=2, pod_template={"spec": {"initContainers": [later]}})


def test_pod_that_has_not_begun_has_no_outputs_to_lose(executor, tmp_path):
    executor = second_pod_later(executor, seconds=600)
    driver, handle = start(executor, script_job("touch $NEMO_AIRFLOW_OUTPUT_DIR/file; exit 7"))
    assert follow(executor, handle)[0].status.exit_code == 7
    assert [str(path) for path in blocking.run(driver.collect(handle, tmp_path))] == ["file"]


def test_outputs_of_a_pod_that_starts_later_than_the_first_ends_are_collected(executor, tmp_path):
    executor = second_pod_later(executor, seconds=8)
    driver, handle = start(executor, script_job("[ $NODE_RANK = 0 ] || touch $NEMO_AIRFLOW_OUTPUT_DIR/shard"))
    assert follow(executor, handle)[0].succeeded
    assert [str(path) for path in blocking.run(driver.collect(handle, tmp_path))] == ["node-1/shard"]


def test_outputs_of_the_other_pods_are_collected_where_those_of_one_are_gone(executor, tmp_path, api, namespace):
    executor = dataclasses.replace(executor, nodes=2, linger=60)
    text = f"touch $NEMO_AIRFLOW_OUTPUT_DIR/shard; [ $NODE_RANK = 0 ] || touch ../{COLLECTED}"
    driver, handle = start(executor, script_job(text))
    assert follow(executor, handle)[0].succeeded
    wait_until(lambda: any(map(has_ended, pods_of(api, namespace, handle.key))), "the second pod to end")
    with pytest.raises(ExecutorError, match=f"pod {handle.key}-1 are gone"):
        blocking.run(driver.collect(handle, tmp_path))
    assert (tmp_path / "shard").exists()


# Outputs


def test_job_without_outputs_has_none_to_collect(executor, tmp_path):
    driver, handle = start(executor, script_job("true"))
    wait_for_end(driver, handle)
    assert blocking.run(driver.collect(handle, tmp_path)) == []


def test_outputs_that_nobody_fetched_in_time_are_said_to_be_gone(executor, tmp_path):
    executor = dataclasses.replace(executor, linger=0)
    driver, handle = start(executor, script_job("touch $NEMO_AIRFLOW_OUTPUT_DIR/file"))
    assert wait_for_end(driver, handle).state is JobState.SUCCEEDED
    with pytest.raises(ExecutorError, match="gone"):
        blocking.run(driver.collect(handle, tmp_path))


def test_pod_ends_once_its_outputs_were_fetched_and_kept(executor, tmp_path):
    executor = dataclasses.replace(executor, linger=600)
    driver, handle = start(executor, script_job("touch $NEMO_AIRFLOW_OUTPUT_DIR/file"))
    assert follow(executor, handle)[0].succeeded
    blocking.run(driver.collect(handle, tmp_path))
    assert blocking.run(service_of(driver).status([handle]))[handle.key].state is JobState.RUNNING
    blocking.run(driver.release([handle]))
    assert wait_for_end(driver, handle, 20).state is JobState.SUCCEEDED


def test_job_that_waits_for_its_outputs_to_be_fetched_keeps_its_result_when_cancelled(executor):
    executor = dataclasses.replace(executor, linger=600)
    driver, handle = start(executor, script_job("touch $NEMO_AIRFLOW_OUTPUT_DIR/file"))
    assert follow(executor, handle)[0].succeeded
    blocking.run(driver.cancel([handle]))
    assert wait_for_end(driver, handle, 30).state is JobState.SUCCEEDED


# Ways to the cluster


def test_no_api_server_says_nothing_of_the_job(executor, tmp_path):
    nowhere = kubeconfig(tmp_path, "https://127.0.0.1:9")
    handle = submit(executor, script_job("true"))
    away = dataclasses.replace(executor, config_file=nowhere).connect()
    for call in (
        service_of(away).status([handle]),
        away.submit(executor.render(script_job("true"))),
        away.cancel([handle]),
    ):
        with pytest.raises(BackendUnavailable, match=r"https://127\.0\.0\.1:9 cannot be reached"):
            blocking.run(call)


def test_credentials_that_are_no_longer_valid(executor, lab_kubeconfig, tmp_path):
    host = kubernetes.config.new_client_from_config(lab_kubeconfig).configuration.host
    executor = dataclasses.replace(executor, config_file=kubeconfig(tmp_path, host, token="expired"))
    with pytest.raises(BackendUnavailable, match="does not accept the credentials"):
        blocking.run(executor.connect().find(["some-key"]))


def test_token_that_was_renewed_is_read_again(executor, lab_kubeconfig, tmp_path):
    client = kubernetes.config.new_client_from_config(lab_kubeconfig)
    (token,) = client.configuration.api_key.values()
    token = token.removeprefix("Bearer ")
    path = kubeconfig(tmp_path, client.configuration.host, token=token)
    driver = dataclasses.replace(executor, config_file=path).connect()
    assert blocking.run(driver.find(["some-key"])) == {}
    driver._cluster._client.configuration.api_key["BearerToken"] = "Bearer expired"
    assert blocking.run(driver.find(["some-key"])) == {}


def test_connection_of_airflow(executor, lab_kubeconfig, namespace, monkeypatch):
    import yaml

    with open(lab_kubeconfig) as file:
        config = yaml.safe_load(file)
    extra = {"extra__kubernetes__kube_config": json.dumps(config), "namespace": namespace}
    monkeypatch.setenv("AIRFLOW_CONN_K8S", json.dumps({"conn_type": "kubernetes", "extra": json.dumps(extra)}))
    executor = dataclasses.replace(executor, config_file=None, namespace=None, kubernetes_conn_id="k8s")
    handle = submit(executor, script_job("echo here"))
    assert handle.cluster.endswith(f"/{namespace}")
    assert follow(executor, handle)[1] == ["here"]


def kubeconfig(folder, server, token="none"):
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
        "current-context": "x",
    }
    path = folder / f"kubeconfig-{uuid.uuid4().hex}"
    path.write_text(json.dumps(config))
    return str(path)


# What is there


def test_survey_finds_what_runs_and_where_it_comes_from(executor):
    labels = {"dag_id": "my dag/with?odd chars", "run_id": "manual__2026-01-01T00:00:00+00:00", "url": "http://x/y"}
    driver, handle = start(executor, script_job("echo started; sleep 600", labels=labels))
    wait_for_output(driver, handle, b"started")
    assert handle in blocking.run(driver.survey())
    assert blocking.run(driver.labels([handle])) == {handle.key: labels}
    blocking.run(driver.cancel([handle]))
    wait_for_end(driver, handle)
    assert handle not in blocking.run(driver.survey())
