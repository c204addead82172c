"""Entries of one Unix user are neither lost nor delivered again and again by another, who is told whose they are."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from spool_cases import Case, put_into_spool, waiting

from nemo_airflow.cli import main
from nemo_airflow.cli.ports import hold_port, port_of
from nemo_airflow.tracking.mlflow import MLflowTracker

pytestmark = pytest.mark.lab  # to become another user takes root, which the lab takes too

ONE, OTHER, GROUP = 64801, 64802, 64810


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder that belongs to one user, and that other users reach."""
    folder = Path(tempfile.mkdtemp(prefix="nemo-airflow-users-"))
    folder.chmod(0o755)
    (folder / "home").mkdir()
    os.chown(folder / "home", ONE, GROUP)
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(folder / "home"))
    yield folder / "home"
    shutil.rmtree(folder)


def as_user(uid: int, call: Callable[[], int]) -> int | None:
    """Returns what a call returns in a process of a user and the group of both."""

    def run() -> None:
        os.setgroups([GROUP])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.umask(0o022)
        os._exit(call())

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(300)
    return process.exitcode


@pytest.mark.parametrize("mode", [0o755, 0o770], ids=["own", "shared"])
def test_who_may_not_remove_an_entry_says_whose_it_is_and_who_may_tries_to_deliver_it(
    mode: int, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home.chmod(mode)
    case = Case(0, "two-users")

    def leave_one(tracker: MLflowTracker) -> int:
        put_into_spool(case, tracker, home.parent / "logs")
        return 0

    (home.parent / "logs").mkdir()
    os.chown(home.parent / "logs", ONE, GROUP)
    with hold_port() as nobody:
        away = MLflowTracker(tracking_uri=f"http://127.0.0.1:{port_of(nobody)}")
        assert as_user(ONE, lambda: leave_one(away)) == 0
        assert as_user(OTHER, lambda: main(["sync"])) == 1
    said = capfd.readouterr().err
    if mode == 0o755:
        assert f"{case.key}: not delivered: it belongs to user {ONE}, who can deliver it" in said
    else:
        assert f"{away.tracking_uri} cannot be reached" in said
    assert waiting() == [case.key]
