"""docker/compose.yaml from outside: the retraining pipeline through kills, health, passwords, and what is missing."""

import shutil

import httpx
import mlflow
import pytest

pytestmark = pytest.mark.timeout(1800)  # images are built, and a dozen services start

DAG = "retrain_digits"
ENDED = ("success", "failed")


@pytest.fixture(scope="module")
def airflow(stack):
    """A client of Airflow's API with the account that make-env.sh has made."""
    account = {"username": "admin", "password": stack.secrets["AIRFLOW_PASSWORD"]}
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports['AIRFLOW_PORT']}", timeout=300) as client:
        token = client.post("/auth/token", json=account).raise_for_status().json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        client.base_url = client.base_url.join("/api/v2")
        yield client


@pytest.fixture(scope="module")
def ray(stack):
    """A client of Ray's dashboard."""
    headers = {"Authorization": f"Bearer {stack.secrets['RAY_TOKEN']}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports['RAY_PORT']}", headers=headers, timeout=300) as client:
        yield client


def test_without_passwords_compose_says_in_one_line_what_to_do(stack, tmp_path):
    shutil.copytree(stack.folder / "docker", tmp_path / "docker", ignore=shutil.ignore_patterns(".env"))
    done = stack.sh(f"cd {tmp_path} && COMPOSE_FILE=docker/compose.yaml docker compose up --detach")
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert "missing, run docker/make-env.sh once" in done.stderr


def test_passwords_are_made_once_and_are_their_owners_alone(stack):
    before = (stack.folder / "docker/.env").read_text()
    assert (stack.folder / "docker/.env").stat().st_mode & 0o777 == 0o600
    done = stack.sh("docker/make-env.sh")
    assert done.returncode == 1
    assert "it stays as it is" in done.stderr
    assert (stack.folder / "docker/.env").read_text() == before
    assert len(set(stack.secrets.values())) == len(stack.secrets)


def test_the_pipeline_goes_on_where_a_worker_and_the_triggerer_are_killed(stack, airflow, ray):
    def of_run(path=""):
        return airflow.get(f"/dags/{DAG}/dagRuns/{run_id}{path}").raise_for_status().json()

    def task(name):
        return of_run(f"/taskInstances/{name}")

    def logs():
        texts = [
            airflow.get(
                f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/{name}/logs/{task(name)['try_number']}?full_content=true",
                headers={"Accept": "application/x-ndjson"},
            ).text[-6000:]
            for name in ("check", "train", "compare", "promote")
        ]
        return "\n\n".join(texts)

    def jobs():
        return ray.get("/api/jobs/").raise_for_status().json()

    stack.wait(lambda: airflow.get(f"/dags/{DAG}").is_success, "the DAG to be read")
    airflow.patch(f"/dags/{DAG}", json={"is_paused": False}).raise_for_status()
    conf = {"until": "2026-11-30", "train.optimizer.epochs": 8, "train.model.hidden": [32]}
    asked = airflow.post(f"/dags/{DAG}/dagRuns", json={"logical_date": None, "conf": conf}).raise_for_status()
    run_id = asked.json()["dag_run_id"]

    stack.wait(jobs, "the first job")
    stack.kill("worker")

    def is_second_job_there():
        assert of_run()["state"] not in ENDED, logs()
        return len(jobs()) == 2

    stack.wait(is_second_job_there, "the second job")
    stack.sh(f"docker pause {stack.container('ray')}")  # so that it does not end before it is handed over
    stack.wait(lambda: task("train")["state"] == "deferred", "the second task to be deferred")
    stack.kill("triggerer")
    stack.sh(f"docker unpause {stack.container('ray')}")

    stack.wait(lambda: of_run()["state"] in ENDED, "the end of the run")
    assert of_run()["state"] == "success", logs()
    assert {name: task(name)["try_number"] for name in ("check", "train", "compare", "promote")} == {
        "check": 2,
        "train": 1,
        "compare": 1,
        "promote": 1,
    }
    assert [job["status"] for job in jobs()] == ["SUCCEEDED"] * 3
    # A killed container comes back by itself.
    assert [stack.inspect(name)["RestartCount"] for name in ("worker", "triggerer")] == [1, 1]

    client = mlflow.MlflowClient(f"http://127.0.0.1:{stack.ports['MLFLOW_PORT']}")
    version = client.get_model_version_by_alias("digits", "champion")
    assert client.get_run(version.run_id).info.artifact_uri.startswith("mlflow-artifacts:/")
    model = stack.folder / client.download_artifacts(version.run_id, "model.pkl", str(stack.folder))
    assert model.read_bytes()[:1] == b"\x80"  # a pickle


def test_every_service_becomes_healthy(stack):
    services = stack.services - {"prepare"}

    def ill():
        return {name for name in services if stack.inspect(name)["State"]["Health"]["Status"] != "healthy"}

    stack.wait(lambda: not ill(), "all services to be healthy")
    assert stack.inspect("prepare")["State"]["ExitCode"] == 0


def test_no_service_is_reached_from_other_machines_or_without_a_password(stack, ray):
    published = {
        (name, port["HostIp"])
        for name in stack.services
        for ports in stack.inspect(name)["NetworkSettings"]["Ports"].values()
        for port in ports or ()
    }
    assert published == {(name, "127.0.0.1") for name in ("api-server", "mlflow", "ray")}

    airflow = f"http://127.0.0.1:{stack.ports['AIRFLOW_PORT']}"
    for password in ("admin", "airflow"):
        account = {"username": "admin", "password": password}
        assert httpx.post(f"{airflow}/auth/token", json=account, timeout=300).status_code == 401
    assert httpx.get(f"{airflow}/api/v2/dags", timeout=300).status_code == 401
    assert httpx.get(f"{ray.base_url}/api/jobs/", timeout=300).status_code == 401

    assert "NOAUTH" in stack.execute("redis", "redis-cli ping")[1]
    assert stack.execute("mlflow", "curl -s -o /dev/null -w '%{http_code}' http://store:8333/mlflow")[1] == "403"
    postgres = "env PGPASSWORD=postgres psql -h postgres -U postgres -c 'select 1'"
    assert "password authentication failed" in stack.execute("postgres", postgres)[1]
    # Jobs run in Ray's container: it does not even find what has the passwords of others.
    for name in ("postgres", "redis", "store"):
        assert stack.execute("ray", f"python3 -c 'import socket; socket.gethostbyname(\"{name}\")'")[0] == 1
