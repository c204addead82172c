"""What a job was made from and what came of it: inputs, runs, assets, models; and its checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.dagrun import DagRun
from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from nemo_airflow import settings
from nemo_airflow.exceptions import NemoAirflowError, StoreError
from nemo_airflow.plugin.api.answers import Answer, JobPlace
from nemo_airflow.plugin.api.earlier import ask, need_run
from nemo_airflow.plugin.api.found import FoundJob, FoundJobDep, Source, place_of
from nemo_airflow.plugin.api.rights import Rights, RightsDep
from nemo_airflow.runner import checkpoints
from nemo_airflow.store.address import configured_store
from nemo_airflow.store.incoming import Incoming
from nemo_airflow.store.shared import SharedStore
from nemo_airflow.tracking.base import ARTIFACT_INPUT, ATTEMPTS, RESUMES, RunInput
from nemo_airflow.tracking.mlflow import address
from nemo_airflow.tracking.mlflow.jobs import JobRun
from nemo_airflow.tracking.mlflow.lineage import Use, find_lineage
from nemo_airflow.tracking.mlflow.recorded import recorded_run

router = APIRouter(tags=["origins"])

_EVENTS = 100
"""Events of assets that are shown at most."""


class RelatedRun(Answer):
    """A run that made what a job was given, or that was given what the job has made.

    Attributes:
        mlflow_run_id: Its id.
        key: Its job's key.
        name: Its name, for people.
        state: How its job ended.
        started: When it began, in seconds since the epoch.
        place: Its task instance.
    """

    mlflow_run_id: str
    key: str
    name: str
    state: str
    started: float
    place: JobPlace


class Given(Answer):
    """Something that one run has made and another one was given.

    Attributes:
        name: What it is.
        digest: Its digest, or empty.
        kind: ``artifact``, ``reproduction`` or ``variation`` of a whole run, or ``data``.
        source: Where it is from, where no run is known.
        run: The other run; None where it is not known, or may not be seen.
        is_hidden: Whether the user may not see the other run.
    """

    name: str
    digest: str
    kind: str
    source: str = ""
    run: RelatedRun | None = None
    is_hidden: bool = False


class AssetUse(Answer):
    """An asset of Airflow.

    Attributes:
        asset_id: Its number in Airflow.
        name: Its name.
        uri: Its address.
        at: When the event was, in seconds since the epoch.
    """

    asset_id: int
    name: str
    uri: str
    at: float


class MadeVersion(Answer):
    """A version of a registered model that a run has made.

    Attributes:
        name: The model's name.
        version: Its number.
        aliases: Its aliases, such as ``champion``.
        url: Its page in MLflow, or empty.
    """

    name: str
    version: str
    aliases: list[str]
    url: str


class Origins(Answer):
    """Where a job comes from, and what came of it.

    Attributes:
        inputs: What it was given.
        consumers: Where what it has made was used.
        triggered_by: The assets whose events have started its DAG run.
        assets: The assets that its task has updated.
        models: The versions of registered models that it has made.
        not_known: What could not be found out, a line for each.
    """

    inputs: list[Given]
    consumers: list[Given]
    triggered_by: list[AssetUse]
    assets: list[AssetUse]
    models: list[MadeVersion]
    not_known: list[str]


class StoredCheckpoint(Answer):
    """A checkpoint.

    Attributes:
        name: Its name.
        number: 1 for the first of all attempts.
        files: How many files it has.
        size: Their bytes.
        saved_by: The key of the attempt that has saved it.
        continued_by: The key of the attempt that was given it to go on from; or empty.
    """

    name: str
    number: int
    files: int
    size: int
    saved_by: str
    continued_by: str = ""


class Checkpoints(Answer):
    """The checkpoints of a job and of its earlier attempts.

    Attributes:
        attempts: The keys of the attempts, the newest first.
        resumes: The run from whose checkpoint it has gone on with other values; None where there is none.
        resumes_hidden: Whether there is one that the user may not see.
        checkpoints: What the shared store has, the newest first.
        why_not: Why nothing is known of them, in one line; or empty.
    """

    attempts: list[str]
    resumes: RelatedRun | None = None
    resumes_hidden: bool = False
    checkpoints: list[StoredCheckpoint] = Field(default_factory=list)
    why_not: str = ""


@router.get("/job/origins")
def read_origins(session: SessionDep, rights: RightsDep, found: FoundJobDep) -> Origins:
    """Returns what a job was given and by whom, and who was given what it has made."""
    run, source = need_run(found)
    lineage = ask(lambda: find_lineage(run.run_id, depth=1, tracking_uri=source.tracking_uri, conn_id=source.conn_id))
    recorded = ask(lambda: recorded_run(run.run_id, source.tracking_uri, source.conn_id, ()))
    inputs = [_describe_use(use, lineage.runs.get(use.source), rights) for use in lineage.sources(run.run_id)]
    inputs += [_data(each) for each in recorded.datasets if each.source_type != ARTIFACT_INPUT]
    not_known: list[str] = []
    try:
        models = list(_models(run, source))
    except NemoAirflowError as error:
        models, not_known = [], [f"the registry of models does not answer: {error}"]
    may_see_assets = get_auth_manager().is_authorized_asset(method="GET", user=rights.user)
    return Origins(
        inputs=inputs,
        consumers=[_describe_use(use, lineage.runs.get(use.run_id), rights) for use in lineage.users(run.run_id)],
        triggered_by=list(_triggered_by(session, found)) if may_see_assets else [],
        assets=list(_updated(session, found)) if may_see_assets else [],
        models=models,
        not_known=not_known,
    )


@router.get("/job/checkpoints")
def list_checkpoints(rights: RightsDep, found: FoundJobDep) -> Checkpoints:
    """Returns the checkpoints of a job, which attempt has saved each, and which one went on from it."""
    tags: Mapping[str, str] = found.run.tags if found.run else {}
    attempts = tags.get(ATTEMPTS, "").split() or [found.key]
    resumed, is_hidden = _resumed(found, tags.get(RESUMES, ""), rights)
    try:
        store = configured_store()
        if store is None:
            raise StoreError(
                "no shared store is configured (NEMO_AIRFLOW_STORE): checkpoints are only where the job has run"
            )
        listed, why_not = _checkpoints(store, attempts), ""
    except (NemoAirflowError, ImportError, OSError) as error:
        listed, why_not = [], str(error)
    return Checkpoints(
        attempts=attempts, resumes=resumed, resumes_hidden=is_hidden, checkpoints=listed, why_not=why_not
    )


def _related(run: JobRun) -> RelatedRun:
    return RelatedRun(
        mlflow_run_id=run.run_id, key=run.key, name=run.name, state=run.state, started=run.began, place=place_of(run)
    )


def _describe_use(use: Use, other: JobRun | None, rights: Rights) -> Given:
    if other is not None and not rights.may_read(other.dag_id):
        return Given(name=use.name, digest=use.digest, kind="artifact", is_hidden=True)
    return Given(
        name=use.name,
        digest=use.digest,
        kind=use.name if use.is_whole_run else "artifact",
        source="" if other else use.source,
        run=_related(other) if other else None,
    )


def _data(given: RunInput) -> Given:
    try:
        source = json.loads(given.source)
    except ValueError:
        source = given.source
    where = source.get("uri") or source.get("url") or "" if isinstance(source, Mapping) else source
    return Given(name=given.name, digest=given.digest, kind="data", source=str(where))


def _models(run: JobRun, source: Source) -> Iterator[MadeVersion]:
    uri, _ = address.resolve(source.tracking_uri, source.conn_id)
    base = settings.mlflow_page() or address.hide_login(uri)
    runs = source.runs()
    for made in runs.versions_of([run.run_id]):
        model = runs.model(made.model)
        aliases = sorted(alias for alias, version in model.aliases.items() if version == made.version) if model else []
        page = address.model_page(base, made.model, made.version)
        yield MadeVersion(name=made.model, version=made.version, aliases=aliases, url=page)


def _triggered_by(session: Session, found: FoundJob) -> Iterator[AssetUse]:
    place = found.place
    events = (
        select(AssetEvent, AssetModel)
        .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        .where(AssetEvent.created_dagruns.any((DagRun.dag_id == place.dag_id) & (DagRun.run_id == place.dag_run_id)))
    )
    yield from _uses(session, events)


def _updated(session: Session, found: FoundJob) -> Iterator[AssetUse]:
    place = found.place
    events = (
        select(AssetEvent, AssetModel)
        .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        .where(
            AssetEvent.source_dag_id == place.dag_id,
            AssetEvent.source_run_id == place.dag_run_id,
            AssetEvent.source_task_id == place.task_id,
            AssetEvent.source_map_index == place.map_index,
        )
    )
    yield from _uses(session, events)


def _uses(session: Session, events: Any) -> Iterator[AssetUse]:
    for event, asset in session.execute(events.order_by(AssetEvent.timestamp.desc()).limit(_EVENTS)):
        yield AssetUse(asset_id=asset.id, name=asset.name, uri=asset.uri, at=event.timestamp.timestamp())


def _resumed(found: FoundJob, run_id: str, rights: Rights) -> tuple[RelatedRun | None, bool]:
    source = found.source
    run = ask(lambda: source.runs().get(run_id)) if run_id and source is not None else None
    if run is None:
        return None, False
    return (_related(run), False) if rights.may_read(run.dag_id) else (None, True)


def _checkpoints(store: SharedStore, attempts: Sequence[str]) -> list[StoredCheckpoint]:
    """Returns the checkpoints in the store. A later attempt's list also has those that it was given."""
    lists = [_read_sizes(store, key) for key in attempts]
    found: dict[str, StoredCheckpoint] = {}
    for key, names in zip(reversed(attempts), reversed(lists), strict=True):  # the oldest attempt first
        for name, (files, size) in names.items():
            if name not in found:
                number = checkpoints.number_in(name)
                found[name] = StoredCheckpoint(name=name, number=number, files=files, size=size, saved_by=key)
    for position, key in enumerate(attempts[:-1]):
        before = next((names for names in lists[position + 1 :] if names), {})
        if before:
            newest = max(before, key=checkpoints.number_in)
            found[newest] = found[newest].model_copy(update={"continued_by": key})
    return sorted(found.values(), key=lambda each: each.number, reverse=True)


def _read_sizes(store: SharedStore, key: str) -> dict[str, tuple[int, int]]:
    """Returns the checkpoints that an attempt has sent: how many files each has, and their bytes."""
    manifest = Incoming(store, key).read_checkpoints()
    if manifest is not None:
        files = [(file.path, file.size) for file in manifest.files]
    else:
        held = store.read_json(f"refs/checkpoints-{key}")
        record = store.read_json(held["objects"][0]) if held else None
        files = [(str(path), int(size)) for path, _, size, _ in record["files"]] if record else []
    found: dict[str, tuple[int, int]] = {}
    for path, size in files:
        name = path.partition("/")[0]
        if checkpoints.number_in(name):
            count, total = found.get(name, (0, 0))
            found[name] = count + 1, total + size
    return found
