"""Keeps the tests apart from what the machine happens to set; must run before Airflow is imported anywhere."""

import atexit
import contextlib
import fcntl
import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

# Where pytest keeps the folders of the last runs; the workers of a run find it set.
_TEMPORARY = os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
_HOME = Path(tempfile.mkdtemp(prefix="nemo-airflow-tests-", dir=_TEMPORARY))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
(_HOME / "dags").mkdir()
# What a process that a test kills leaves behind goes with the tests.
_HOME.chmod(0o711)  # some tests have a second user
(_HOME / "tmp").mkdir()
(_HOME / "tmp").chmod(0o1777)
os.environ["TMPDIR"] = tempfile.tempdir = str(_HOME / "tmp")
# A newcomer's Python writes bytecode beside the code and buffers what it prints: so do the tests and all they start.
_UNSET = ("AIRFLOW", "NEMO_AIRFLOW", "MLFLOW", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
for name in [name for name in os.environ if name.startswith(_UNSET)]:
    del os.environ[name]
sys.dont_write_bytecode = False
# A shell starts what is to run in the background so that it ignores Ctrl-C, and all that it starts does so too.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.update(
    AIRFLOW_HOME=str(_HOME),
    NEMO_AIRFLOW_HOME=str(_HOME / "nemo"),
    AIRFLOW__CORE__DAGS_FOLDER=str(_HOME / "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
)

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("gate", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("gate")

pytest_plugins = ["side_by_side", "time_table", "lab.fixtures", "shared_airflow"]
# They tell what they found.
_HELPERS = {path.stem for path in Path(__file__).parent.rglob("*_*.py") if not path.stem.startswith("test_")}
pytest.register_assert_rewrite("nemo_airflow.testing.conformance", *_HELPERS)


# What is imported and collected stays to the end: to look for garbage among it takes a fifth of the time of collecting.
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests():
    """Has a process forget a test's passwords, which would be starred out, or refused, in the texts of the next."""
    before = {masker: (set(masker.patterns), masker.replacer) for masker in _maskers()}
    yield
    for masker in _maskers():  # also those that the test was the first to import
        masker.patterns, masker.replacer = before.get(masker, (set(), None))


def _maskers():
    names = ("airflow._shared.secrets_masker", "airflow.sdk._shared.secrets_masker")
    return [sys.modules[name]._secrets_masker() for name in names if name in sys.modules]


@pytest.fixture(scope="session")
def ssh_conn_id(lab_ssh):
    """Id of an Airflow connection to the lab's login node."""
    from lab.connections import ssh_connection

    os.environ["AIRFLOW_CONN_LAB_SSH"] = ssh_connection(lab_ssh)
    return "lab_ssh"


def _made_once(tmp_path_factory, name, make):
    """Returns the file that the first process of a run to need it makes for all."""
    run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent
    with open(run / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (run / name).exists():
            make(run / f"{name}.new")
            (run / f"{name}.new").rename(run / name)
    return run / name


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory):
    """The metadata database that ``dag.test()`` needs; made once for all processes of a run, each has a copy."""

    def make(path):
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
        shutil.copy(_HOME / "airflow.db", path)

    # Over what a test without this fixture may have made: whoever opens a database of sqlite makes an empty one.
    shutil.copy(_made_once(tmp_path_factory, "airflow.db", make), _HOME / "airflow.db")


_MAKE_MLFLOW = """
import sys
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
SqlAlchemyStore(f"sqlite:///{sys.argv[1]}", "artifacts")
"""


@pytest.fixture(scope="session")
def new_mlflow(tmp_path_factory):
    """Makes a new MLflow database at a path, and returns its address: a copy, for MLflow itself takes seconds."""

    def make(path):
        subprocess.run([sys.executable, "-c", _MAKE_MLFLOW, path], check=True, capture_output=True)
        with contextlib.closing(sqlite3.connect(path)) as database:
            # Whoever opens it first makes this experiment, with a place for its artifacts.
            database.execute("DELETE FROM experiments")
            database.commit()

    made = _made_once(tmp_path_factory, "mlflow.db", make)

    def new(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, path)
        return f"sqlite:///{path}"

    return new


@pytest.fixture
def mlflow_database(new_mlflow, tmp_path):
    """Address of a new MLflow database of the test's own, ``mlflow.db`` in its folder."""
    return new_mlflow(tmp_path / "mlflow.db")
