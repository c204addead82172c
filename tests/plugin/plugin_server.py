"""Helpers of the tests with a real Airflow below a path."""

import shutil
import subprocess
from pathlib import Path

import httpx

HERE = Path(__file__).parent
PATCH_SECRET = "not-yet-committed-4711"


def repository(folder):
    """Returns a git repository with the DAGs, in which a change is not committed."""
    shutil.copytree(HERE / "dags", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text("__pycache__/\n")
    (folder / "settings.txt").write_text("key = \n")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "code"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    (folder / "settings.txt").write_text(f"key = {PATCH_SECRET}\n")
    return folder


def token(server, name, password):
    answer = httpx.post(f"{server.url}/auth/token", json={"username": name, "password": password}, timeout=60)
    return answer.raise_for_status().json()["access_token"]


def end_of(server, dag_id, run_id):
    """Waits until a run has ended, and returns how."""
    return server.wait(
        lambda: (state := server.run(dag_id, run_id)["state"]) in ("success", "failed") and state,
        f"{dag_id} to end",
        240,
    )
