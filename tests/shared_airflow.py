"""Pytest plugin: one real Airflow for all tests that run DAGs in it and break nothing, and a browser to look at it.

It is served below a path, as behind a proxy, has users who may see different things, and takes DAGs from three
bundles: the examples of this repository, the README's DAG in a new repository, and those whose pages the tests of the
plugin look at. Starting one takes a core most of a minute.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from side_by_side import end_after_group

HERE = Path(__file__).parent
ROOT = HERE.parent
USERS = {
    "ann": "admin", "vera": "viewer", "uma": "user", "otto": "viewer", "rita": "viewer", "nora": "viewer",
}  # fmt: skip
"""Role by name; the first is whom the tests call the API as."""

PATCH_SECRET = "not-yet-committed-4711"

TRAINER = """
import dataclasses


@dataclasses.dataclass
class Model:
    hidden: int = 8


def train(model: Model, learning_rate: float, until: str) -> dict:
    print("training until", until)
    return {"hidden": model.hidden, "learning_rate": learning_rate, "until": until}
"""


def git(folder, *arguments):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def commit_all(folder):
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        git(folder, *arguments)


@pytest.fixture(scope="session")
def readme_repository(tmp_path_factory):
    """A new repository with the README's DAG and its code, and no .gitignore."""
    text = (ROOT / "README.md").read_text()
    [example] = re.findall(r"^```python\n(from datetime .*?)^```", text, re.MULTILINE | re.DOTALL)
    folder = tmp_path_factory.mktemp("readme")
    (folder / "dag.py").write_text(example)
    (folder / "trainer.py").write_text(TRAINER)
    commit_all(folder)
    return folder


def make_plugin_repository(folder):
    """Makes a repository of the plugin's DAGs, in which a change is not committed."""
    shutil.copytree(HERE / "plugin" / "dags", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text("__pycache__/\n")
    (folder / "settings.txt").write_text("key = \n")
    commit_all(folder)
    (folder / "settings.txt").write_text(f"key = {PATCH_SECRET}\n")
    return folder


@pytest.fixture(scope="session")
def airflow_server(request, tmp_path_factory, readme_repository):
    """The Airflow; what it keeps is below its ``home``."""
    from nemo_airflow.cli.airflow_server import AirflowServer

    home = tmp_path_factory.mktemp("airflow-server")
    bundles = {
        "dags-folder": ROOT / "dags",
        "readme": readme_repository,
        "plugin": make_plugin_repository(home / "dags"),
    }
    kind = "airflow.dag_processing.bundles.local.LocalDagBundle"
    env = {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
            [{"name": name, "classpath": kind, "kwargs": {"path": str(path)}} for name, path in bundles.items()]
        ),
        # No DAG file changes, and reading them again would take a core a second each.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        # Only the runs that a test asks for: a DAG on a schedule would begin with one of its own.
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__AUTH_MANAGER": "one_dag_refused.OneDagRefused",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
        "PYTHONPATH": os.pathsep.join([str(HERE / "plugin" / "auth"), os.environ.get("PYTHONPATH", "")]),
        "PLUGIN_TEST_GO": str(home / "go"),
        # Back-ends that the database knows nothing of; nobody listens there.
        "AIRFLOW_CONN_EXPORTED": json.dumps({"conn_type": "nemo_slurm", "host": "127.0.0.1", "port": 1}),
        "AIRFLOW_CONN_EXPORTED_HTTP": json.dumps({"conn_type": "http", "host": "127.0.0.1", "port": 1}),
        "NEMO_AIRFLOW_BACK_ENDS": "of_a_vault",
    }
    server = AirflowServer(home, ROOT / "dags", env=env, path="/airflow")
    end_after_group(request, server.stop)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def tokens(airflow_server):
    """A token of each user, by name."""
    passwords = json.loads((airflow_server.airflow_home / "simple_auth_manager_passwords.json.generated").read_text())

    def token(name, password):
        account = {"username": name, "password": password}
        answer = httpx.post(f"{airflow_server.url}/auth/token", json=account, timeout=300)
        return answer.raise_for_status().json()["access_token"]

    return {name: token(name, password) for name, password in passwords.items()}


@pytest.fixture(scope="session")
def end_of(airflow_server):
    """Waits until a run has ended, and returns how."""

    def wait(dag_id, run_id):
        ended = ("success", "failed")
        return airflow_server.wait(
            lambda: (state := airflow_server.run(dag_id, run_id)["state"]) in ended and state,
            f"the end of {dag_id} {run_id}",
        )

    return wait


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "install a browser: apt-get install chromium"
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        env = {**os.environ, "WITHOUT_NETLINK": chromium}
        running = playwright.chromium.launch(executable_path=HERE / "without_netlink.py", args=quiet, env=env)
        yield running
        running.close()


@pytest.fixture
def open_page(request, browser, airflow_server, tokens):
    """Opens a page in which a user is logged in; where the test fails, what is on the page is told with it."""
    from playwright.sync_api import expect

    contexts = []
    failed = request.session.testsfailed

    def open_for(user, **options):
        # Without a graphics card each animation takes a core.
        context = browser.new_context(viewport={"width": 1280, "height": 1100}, reduced_motion="reduce", **options)
        contexts.append(context)
        context.add_cookies([{"name": "_token", "value": tokens[user], "url": airflow_server.url}])
        page = context.new_page()
        page.on("console", lambda message: print(page.url, message.type, message.text[:300]))
        page.on("pageerror", lambda error: print(page.url, error))
        page.on("requestfailed", lambda asked: print(page.url, asked.url, asked.failure))
        page.on("response", lambda answer: answer.ok or print(page.url, answer.url, answer.status))
        # Airflow's page is a large bundle, and the machine is busy with the jobs.
        page.set_default_timeout(180_000)
        expect.set_options(timeout=180_000)
        return page

    yield open_for
    for context in contexts:
        for page in context.pages if request.session.testsfailed > failed else ():
            print(page.url, page.locator("body").inner_text()[:3000])
        context.close()


@pytest.fixture(scope="session")
def axe():
    """The program that looks for what people with a screen reader or a keyboard cannot use."""
    sys.path.insert(0, str(ROOT / "ui"))
    import build

    with build.alone():
        build.install(unless="axe-core")
    return (ROOT / "ui" / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture
def look(axe, tmp_path):
    """Looks at our part of a page, light and dark: nothing serious for accessibility, and a picture of each.

    With ``NEMO_PICTURES`` the pictures are those of the docs: ``docs/img/NAME-light.png`` and ``NAME-dark.png``.
    """
    folder = ROOT / "docs" / "img" if os.environ.get("NEMO_PICTURES") else tmp_path

    def look(page, name, height=None):
        page.evaluate(axe)
        if height:
            page.set_viewport_size({"width": 1280, "height": height})
        for mode, other in (("dark", "light"), ("light", "dark")):
            page.evaluate(
                "([mode, other]) => document.documentElement.classList.replace(other, mode) || "
                "document.documentElement.classList.add(mode)",
                [mode, other],
            )
            found = page.evaluate("axe.run('.nemo', {resultTypes: ['violations']})")["violations"]
            serious = [
                f"{each['id']} ({mode}): {each['help']}: {node['html'][:200]} {node['failureSummary'][:200]}"
                for each in found
                if each["impact"] in ("serious", "critical")
                for node in each["nodes"][:3]
            ]
            assert not serious, "\n".join(serious)
            page.screenshot(path=folder / f"{name}-{mode}.png")

    return look
