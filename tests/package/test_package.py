"""The distribution: what importing it costs, and what Airflow finds of it."""

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import jsonschema
import pytest

DAGS = Path(__file__).parents[2] / "dags"
OURS = ("fiddle", "pydantic", "yaml", "rich", "httpx")
HEAVY = ("airflow", "mlflow", "docker", "kubernetes", "ray", "asyncssh", "paramiko", "numpy", *OURS)


def modules_after(code, cwd=None):
    text = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=cwd)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import nemo_airflow", ()),
        ("import nemo_airflow.config, nemo_airflow.executors, nemo_airflow.packaging, nemo_airflow.tracking", ()),
        ("from nemo_airflow import LocalExecutor, GitArchivePackager", ()),
        ("from nemo_airflow import log_metric", ()),
        ("import nemo_airflow.config.plan", ()),
        ("import nemo_airflow.testing.plugin", ()),
        ("from nemo_airflow import MLflowTracker", ("httpx",)),
        ("from nemo_airflow import NemoRunOperator", ("airflow", *OURS)),
    ],
)
def test_import_brings_only_what_is_used(code, allowed):
    loaded = modules_after(code)
    assert [name for name in HEAVY if name in loaded and name not in allowed] == []


PUBLIC_NAMES = """
import importlib, pkgutil, types
import nemo_airflow

packages = ["nemo_airflow", *(found.name for found in pkgutil.walk_packages(nemo_airflow.__path__, "nemo_airflow.")
    if found.ispkg)]
for package in packages:
    module = importlib.import_module(package)
    names = getattr(module, "__all__", [])
    for name in names:  # twice: the first import of a name may import a module of that name, which then hides it
        for _ in range(2):
            scope = {}
            exec(f"from {package} import {name}", scope)
            if isinstance(scope[name], types.ModuleType):
                print(f"{package}.{name} is a module")
                break
    if hasattr(module, "__getattr__"):
        modules = {found.name for found in pkgutil.iter_modules(module.__path__)}
        for name in modules & set(names):
            print(f"{package}.{name} is the name of a module too")
"""


def test_every_public_name_is_what_it_says_in_a_fresh_interpreter_and_no_module():
    done = subprocess.run([sys.executable, "-c", PUBLIC_NAMES], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_dag_files_import_no_library_of_their_jobs():
    loaded = modules_after("import retrain_digits, operate_digits, sweep_digits", cwd=DAGS)
    assert not loaded & {"sklearn", "numpy", "scipy", "mlflow", "joblib"}


def test_airflow_finds_the_provider_and_its_metadata_is_valid():
    import airflow

    (entry,) = [entry for entry in entry_points(group="apache_airflow_provider") if entry.dist.name == "nemo-airflow"]
    info = entry.load()()
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(info, schema)
    assert info["package-name"] == "nemo-airflow"
    names = [*info["extra-links"], *(d["class-name"] for d in info["task-decorators"])]
    names += [connection["hook-class-name"] for connection in info["connection-types"]]
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(__import__(module, fromlist=[attribute]), attribute)


def test_airflow_finds_the_plugin():
    (entry,) = [entry for entry in entry_points(group="airflow.plugins") if entry.dist.name == "nemo-airflow"]
    plugin = entry.load()
    pages = {page["destination"] for page in plugin.react_apps}
    assert pages == {"nav", "task_instance", "dag_run", "dashboard"}
    assert all(page["bundle_url"].startswith("nemo-airflow/static/") for page in plugin.react_apps)


def test_missing_extra_is_named_with_the_command(tmp_path):
    code = f"""
import sys
sys.modules["mlflow.store.tracking.sqlalchemy_store"] = None
sys.modules["mlflow"] = None
from nemo_airflow import MLflowTracker
from nemo_airflow.job import Job
tracker = MLflowTracker(tracking_uri="sqlite:///{tmp_path}/m.db")
try:
    job = Job(key="k", name="n", plan={{"version": 1, "root": None}})
    tracker.open(job, experiment="e", parent="", shares_filesystem=True)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingExtraError")
    assert "pip install 'nemo-airflow[mlflow]'" in done.stdout
    assert len(done.stdout.splitlines()) == 1
