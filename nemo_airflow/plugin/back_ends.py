"""The back-ends that this Airflow has connections to, and what is found there. Functions block, for minutes some."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow import settings
from nemo_airflow.connections import ConnectionInfo, environment_connections, get_connection, redact
from nemo_airflow.doctor.back_ends import CONNECTION_TYPES, examine_executor, executor_of
from nemo_airflow.exceptions import ExecutorError, NemoAirflowError, SettingsError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.finding import Finding, Verdict, bad
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.reaping import StateOf, Surveyed, orphans_among, survey_all, survey_folders
from nemo_airflow.store.address import open_store
from nemo_airflow.store.collection import collect, references
from nemo_airflow.tracking.mlflow.recorded import digests_of_runs

LOCAL, DOCKER = "local", "docker"
"""Back-ends of the API server's own machine, which need no connection."""

OLD_FOLDERS, OLD_OBJECTS = 14, 30
"""Days after which ``nemo-airflow reap --folders`` and ``nemo-airflow store gc`` delete what nobody wants."""

_DAY = 86400.0
_LIMIT = 120.0
"""Seconds for the jobs of one back-end, or its folders."""

_NO_WAY = ("reached", "login", "executor")
"""Findings after whose failure there is nobody to ask."""

_CONNECTION = "connection:"
_SECRET = re.compile(r"pass|token|secret|private|cookie|header|api_?key|credential|authorization", re.IGNORECASE)
_SHORTEST = 4
"""Characters of the shortest text that is masked."""


@dataclasses.dataclass(frozen=True)
class Examined:
    """What an examination has found.

    Attributes:
        findings: How the back-end fares.
        jobs: Our jobs that run there, or wait.
        trouble: Why those could not be listed; empty if they could.
    """

    findings: Sequence[Finding]
    jobs: Sequence[Surveyed] = ()
    trouble: str = ""


def connections_elsewhere() -> dict[str, str]:
    """Returns the connections of back-ends that are not in Airflow's database, with their types: by id.

    They are in variables of this process, or named by the setting ``back_ends``; the type of these is not known here.
    """
    exported = {
        each.conn_id: each.conn_type for each in environment_connections() if each.conn_type in CONNECTION_TYPES
    }
    return {**dict.fromkeys(settings.back_ends(), "connection"), **exported}


@dataclasses.dataclass(frozen=True)
class FoldersUsed:
    """The disk that jobs use on a back-end.

    Attributes:
        size: Bytes; None where that is not known.
        old: The folders that can be deleted; None where the back-end keeps none.
        trouble: Why it is not known; empty if it is.
    """

    size: int | None = None
    old: int | None = None
    trouble: str = ""


@dataclasses.dataclass(frozen=True)
class StoreUsed:
    """The shared store.

    Attributes:
        where: Its address; empty where there is none.
        size: Bytes of its content.
        objects: Packages and outputs.
        references: Names that protect some of them.
        freed: Bytes that a collection would free.
        unused: Packages and outputs that it would delete.
        trouble: Why this is not known; empty if it is.
    """

    where: str = ""
    size: int = 0
    objects: int = 0
    references: int = 0
    freed: int = 0
    unused: int = 0
    trouble: str = ""


def id_of(conn_id: str) -> str:
    """Returns the id of the back-end of a connection."""
    return f"{_CONNECTION}{conn_id}"


def connection_of(back_end: str) -> str:
    """Returns the connection of a back-end; empty for one that needs none."""
    return back_end.removeprefix(_CONNECTION) if back_end.startswith(_CONNECTION) else ""


def own_back_ends() -> list[str]:
    """Returns the back-ends of this machine."""
    has_docker = os.environ.get("DOCKER_HOST") or Path("/var/run/docker.sock").exists()
    return [LOCAL, *([DOCKER] if has_docker else [])]


def open_executor(back_end: str) -> tuple[Executor, Callable[[str], str]]:
    """Returns an executor of a back-end, and what masks the secrets of its connection in a text. Blocks.

    Raises:
        NemoAirflowError: There is no such back-end, or its connection cannot be read, or not be used.
    """
    if conn_id := connection_of(back_end):
        connection = get_connection(conn_id)
        executor = executor_of(connection)
        if executor is None:
            raise SettingsError(f"no executor uses connections of the type {connection.conn_type!r}")
        return executor, _masking(connection)
    if back_end == DOCKER:
        return executor_from_json({"kind": DOCKER, "container_image": "none"}), redact
    if back_end == LOCAL:
        return executor_from_json({"kind": LOCAL}), redact
    raise SettingsError(f"there is no back-end {back_end!r}")


def examine(back_end: str) -> Examined:
    """Examines a back-end, and lists our jobs there. Blocks, some minutes at most."""
    try:
        executor, mask = open_executor(back_end)
    except NemoAirflowError as error:
        return Examined([bad("connection", redact(str(error)), "mend the connection")])
    found = examine_executor(executor)
    # Whether an image is there depends on the executor of a task, not on the back-end.
    found = [each for each in found if back_end != DOCKER or each.name != "image"]
    findings = [dataclasses.replace(each, said=mask(each.said), fix=mask(each.fix)) for each in found]
    if any(each.verdict is Verdict.FAIL and each.name in _NO_WAY for each in found):
        return Examined(findings, trouble="it cannot be asked for its jobs")
    try:
        return Examined(findings, asyncio.run(asyncio.wait_for(survey_all(executor), _LIMIT)))
    except TimeoutError:
        return Examined(findings, trouble=f"it has not told its jobs within {_LIMIT:.0f} s")
    except NemoAirflowError as error:
        return Examined(findings, trouble=mask(str(error)))


def measure_folders(back_end: str, state_of: StateOf) -> FoldersUsed:
    """Returns the disk that jobs use on a back-end. Blocks, some minutes at most."""
    try:
        executor, mask = open_executor(back_end)
    except NemoAirflowError as error:
        return FoldersUsed(trouble=redact(str(error)))

    async def measure() -> int | None:
        driver = executor.connect()
        try:
            return await driver.disk_used()
        finally:
            await driver.close()

    try:
        size = asyncio.run(asyncio.wait_for(measure(), _LIMIT))
        try:
            jobs = asyncio.run(asyncio.wait_for(survey_folders(executor, OLD_FOLDERS * _DAY), _LIMIT))
        except ExecutorError:
            if size is not None:
                raise
            return FoldersUsed()  # it keeps no folders
        return FoldersUsed(size, len(orphans_among(jobs, state_of)))
    except TimeoutError:
        return FoldersUsed(trouble=f"it has not answered within {_LIMIT:.0f} s")
    except NemoAirflowError as error:
        return FoldersUsed(trouble=mask(str(error)))


def measure_store() -> StoreUsed:
    """Returns what the shared store has, and what a collection would free. Blocks, and deletes nothing."""
    address = settings.store_url()
    if not address:
        return StoreUsed()
    where = ""
    try:
        store = open_store(address)
        where = store.place.where
        objects = [entry for folder in ("packages", "trees") for entry in store.entries(folder)]
        keep = digests_of_runs(None, settings.mlflow_connection() or None)
        garbage = collect(store, older_than=OLD_OBJECTS * _DAY, keep=keep, dry_run=True)
        return StoreUsed(
            where=where,
            size=sum(entry.size for entry in (*objects, *store.entries("blobs"))),
            objects=len(objects),
            references=len(references(store)),
            freed=garbage.size,
            unused=len(garbage.records),
        )
    except NemoAirflowError as error:
        return StoreUsed(where=where, trouble=redact(str(error)))


def _masking(connection: ConnectionInfo) -> Callable[[str], str]:
    secrets = sorted({connection.password, *_secrets_in(connection.extra, is_secret=False)}, key=len, reverse=True)

    def mask(text: str) -> str:
        for secret in secrets:
            if len(secret) >= _SHORTEST:
                text = text.replace(secret, "***")
        return redact(text)

    return mask


def _secrets_in(value: Any, *, is_secret: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _secrets_in(each, is_secret=is_secret or bool(_SECRET.search(str(name))))
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for each in value:
            yield from _secrets_in(each, is_secret=is_secret)
    elif is_secret and isinstance(value, str):
        yield value
