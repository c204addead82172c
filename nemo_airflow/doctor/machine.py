"""Examines this machine: Airflow, git, our folder, the shared store, the tracker."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence

from nemo_airflow import __version__, settings
from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.executors.finding import Finding, bad, doubtful, good
from nemo_airflow.store.address import configured_store
from nemo_airflow.tracking.mlflow import address
from nemo_airflow.tracking.mlflow.runs import find_or_create_experiment
from nemo_airflow.tracking.mlflow.store import Credentials, open_store
from nemo_airflow.tracking.spool import Spool

_OLDEST_AIRFLOW = (3, 3)
_RACE_ENDS = (3, 3, 3)
"""Airflow before this fails a deferred task whose trigger fires within a loop or two of the scheduler."""

_LEAST_ROOM = 1 << 30
_HEARTBEAT = 60.0
"""Seconds without a heartbeat after which a triggerer is dead."""

_EXPERIMENT = "nemo_airflow doctor"
_TRACKER_FIX = "set MLFLOW_TRACKING_URI to a server that answers, or give MLflowTracker(conn_id=...): docs/tracking.md"


def examine_machine() -> list[Finding]:
    """Returns how this machine fares. Blocks."""
    checks: Sequence[Callable[[], list[Finding]]] = (
        _programs, _airflow, _git, _home, _settings, _store, _tracker, _triggerer,
    )  # fmt: skip
    return [finding for check in checks for finding in check()]


def _programs() -> list[Finding]:
    return [good("nemo-airflow", f"{__version__}, Python {'.'.join(map(str, sys.version_info[:3]))}")]


def _airflow() -> list[Finding]:
    version = importlib.metadata.version("apache-airflow-core")
    number = tuple(int(part) for part in version.split(".")[:3] if part.isdecimal())
    if number < _OLDEST_AIRFLOW:
        return [bad("Airflow", f"{version} is older than 3.3", "pip install 'apache-airflow>=3.3'")]
    if number < _RACE_ENDS:
        said = (
            f"{version}: its scheduler fails a deferred task that goes on at once; tasks of nemo-airflow wait for that"
        )
        return [doubtful("Airflow", said, "pip install 'apache-airflow>=3.3.3' once it is out")]
    return [good("Airflow", version)]


def _git() -> list[Finding]:
    if shutil.which("git") is None:
        said = "not found: GitArchivePackager and 'nemo-airflow run' cannot ship code"
        return [bad("git", said, "install git, for example: apt-get install git")]
    done = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False)
    return [good("git", done.stdout.strip().removeprefix("git version "))]


def _home() -> list[Finding]:
    home = settings.home()
    fix = "set NEMO_AIRFLOW_HOME to a folder on this machine's disk that this user may write"
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".doctor-{uuid.uuid4().hex[:8]}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        return [bad("folder", f"{home} cannot be written: {error.strerror}", fix)]
    free = shutil.disk_usage(home).free
    if free < _LEAST_ROOM:
        mend = "free some, for example: nemo-airflow store gc --older-than 7"
        return [doubtful("folder", f"{home}: {free >> 20} MiB are free", mend)]
    return [good("folder", f"{home}, {free >> 30} GiB free")]


def _settings() -> list[Finding]:
    findings = []
    for read in (
        settings.defer_after, settings.spool_limit, settings.lost_after, settings.give_up_after,
        settings.refuses_patch_with_secret, settings.preloads, settings.consoles,
    ):  # fmt: skip
        try:
            read()
        except NemoAirflowError as error:
            findings.append(bad("settings", str(error)))
    waiting = Spool().entries() if settings.spool_folder().is_dir() else []
    if waiting:
        said = f"{len(waiting)} runs wait in {settings.spool_folder()} for a tracking server"
        findings.append(doubtful("spool", said, "nemo-airflow sync"))
    return findings


def _store() -> list[Finding]:
    try:
        store = configured_store()
        if store is None:
            said = "none: workers on several machines do not see each other's packages and artifacts"
            return [doubtful("shared store", said, "set NEMO_AIRFLOW_STORE to a shared folder, ssh://, s3:// ...")]
        name = f"doctor/{uuid.uuid4().hex}"
        store.place.write(name, b"x")
        read = store.place.read(name)
        store.place.delete([name])
    except NemoAirflowError as error:
        return [bad("shared store", str(error), "mend its address or its rights: NEMO_AIRFLOW_STORE, docs/store.md")]
    if read != b"x":
        return [bad("shared store", f"{store.place.where} does not give back what was written")]
    return [good("shared store", store.place.where)]


def _tracker() -> list[Finding]:
    try:
        uri, credentials = address.resolve(None, None)
    except NemoAirflowError as error:
        return [bad("MLflow", str(error), _TRACKER_FIX)]
    return examine_tracker(uri, credentials)


def examine_tracker(uri: str, credentials: Credentials) -> list[Finding]:
    """Returns how a store of MLflow fares: writes a run, and deletes it. Blocks.

    Args:
        uri: Its address, without credentials.
        credentials: The login.
    """
    try:
        if not uri.startswith("http") and importlib.util.find_spec("mlflow") is None:
            return [bad("MLflow", f"{uri} needs the library", "pip install 'nemo-airflow[mlflow]'")]
        store = open_store(uri, credentials)
        experiment = find_or_create_experiment(store, _EXPERIMENT, address.artifact_location(uri, _EXPERIMENT))
        run = store.create_run(experiment, "doctor", {}, round(time.time() * 1000))
        store.log(run.run_id, tags={"checked": "yes"})
        store.delete_run(run.run_id)
    except NemoAirflowError as error:
        return [bad("MLflow", str(error), _TRACKER_FIX)]
    return [good("MLflow", f"{uri}: a run was written, and deleted")]


def _triggerer() -> list[Finding]:
    """Only where Airflow's database is within reach; a laptop that launches jobs needs none."""
    from airflow.jobs.job import Job
    from airflow.sdk.exceptions import AirflowException
    from airflow.utils.session import create_session
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with create_session() as session:
            beats = [
                job.latest_heartbeat
                for job in session.query(Job).filter_by(job_type="TriggererJob", state="running").all()
            ]
    except (SQLAlchemyError, AirflowException) as error:
        said = f"Airflow's database does not answer ({type(error).__name__}): only jobs without a DAG run from here"
        return [doubtful("triggerer", said, "airflow db check")]
    alive = [beat for beat in beats if beat is not None and time.time() - beat.timestamp() < _HEARTBEAT]
    if not alive:
        said = "none is alive: deferred tasks wait for ever, and only jobs without a DAG run from here"
        return [doubtful("triggerer", said, "airflow triggerer")]
    return [good("triggerer", f"{len(alive)} alive")]
