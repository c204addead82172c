"""The registered models of a DAG run: those of which its jobs made a version, or whose champion it changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.models.xcom import XComModel
from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session

from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.plugin.api.answers import Answer, JobPlace, Number, TrackerState, to_number
from nemo_airflow.plugin.api.dag_run import FoundJobsDep, JobsOfRun
from nemo_airflow.plugin.api.found import place_of
from nemo_airflow.plugin.api.rights import Rights, RightsDep
from nemo_airflow.promotion.changes import ALIAS_CHANGES, CHAMPION, Change, effective_changes, parse_changes
from nemo_airflow.tracking.mlflow.jobs import JobRun, JobRuns
from nemo_airflow.tracking.mlflow.registered import RegisteredModel, RegisteredVersion

router = APIRouter(tags=["DAG run"])

_MOST_MODELS = 10
_MOST_METRICS = 12
_LISTED = 5
"""Changes of an alias that are told of, the newest first."""


class ModelVersion(Answer):
    """A version of a registered model.

    Attributes:
        version: Its number.
        role: ``champion`` in service when the run began to compare, or ``challenger`` from this run.
        aliases: The aliases that name it now.
        created: When it was registered, in seconds since the epoch.
        mlflow_run_id: The run that made it; empty where there is none, or the user may not see it.
        place: The task instance of that run; None likewise.
    """

    version: str
    role: Literal["champion", "challenger"]
    aliases: list[str]
    created: float = 0.0
    mlflow_run_id: str = ""
    place: JobPlace | None = None


class ModelMetric(Answer):
    """A metric of both.

    Attributes:
        name: The metric.
        champion: Its value for the champion; None where that is not known.
        challenger: Its value for the challenger; likewise.
    """

    name: str
    champion: Number | None = None
    challenger: Number | None = None


class ModelChange(Answer):
    """A change of the version in service.

    Attributes:
        kind: ``promotion`` or ``rollback``.
        version: The version that is in service since.
        before: The one that was before; empty for none.
        at: When, in seconds since the epoch.
        by: Who or what has done it.
        why: The reason, in one line.
        is_of_run: Whether this DAG run has done it.
    """

    kind: str
    version: str
    before: str
    at: float
    by: str = ""
    why: str = ""
    is_of_run: bool = False


class RunModel(Answer):
    """A registered model of a DAG run.

    Attributes:
        name: Its name.
        versions: The champion, where there is one, and the challenger.
        others: How many further versions this run has made.
        metrics: What both were measured by.
        compared: Whether one job of this run has measured both on the same data, and returned that.
        decision: What was decided, in the words of the version's tag; or ``promotion`` or ``rollback``; may be empty.
        reason: Why; may be empty.
        changes: What was in service, the newest change first.
    """

    name: str
    versions: list[ModelVersion]
    others: int = 0
    metrics: list[ModelMetric]
    compared: bool = False
    decision: str = ""
    reason: str = ""
    changes: list[ModelChange]


class RunModels(Answer):
    """The registered models of a DAG run.

    Attributes:
        models: The models.
        tracker: The MLflow that has them.
    """

    models: list[RunModel]
    tracker: TrackerState


@router.get("/dag-run/models")
def show_models(session: SessionDep, rights: RightsDep, found: FoundJobsDep) -> RunModels:
    """Returns the registered models of a DAG run."""
    if found.tracker.away or not found.sources:
        return RunModels(models=[], tracker=found.tracker)
    models: list[RunModel] = []
    tracker = found.tracker
    for source in dict.fromkeys(found.sources.values()):
        own = {run.run_id: run for run in _all(found.runs.values()) if found.sources[run.run_id] == source}
        try:
            models += read_models(session, rights, found, source.runs(), own)
        except NemoAirflowError as error:
            tracker = TrackerState(uri=tracker.uri, away=str(error))
    return RunModels(models=models[:_MOST_MODELS], tracker=tracker)


def _all(groups: Iterable[Sequence[JobRun]]) -> list[JobRun]:
    return [run for group in groups for run in group]


def read_models(
    session: Session, rights: Rights, found: JobsOfRun, store: JobRuns, own: Mapping[str, JobRun]
) -> list[RunModel]:
    """Returns the models of a DAG run in one MLflow.

    Args:
        session: Airflow's database.
        rights: What the user may see.
        found: The DAG run.
        store: The MLflow.
        own: The DAG run's runs in it, by id.

    Raises:
        TrackingError: It cannot be read.
    """
    operation = f"{found.dag_run.dag_id}/{found.dag_run.run_id}/"
    made: dict[str, list[RegisteredVersion]] = {}
    for version in store.versions_of(list(own)):
        made.setdefault(version.model, []).append(version)
    models = {model.name: model for model in store.models_tagged(ALIAS_CHANGES.format(CHAMPION), operation)}
    models = {name: model for name, model in models.items() if _changes_by(model, operation)}
    for name in list(made)[:_MOST_MODELS]:
        if name not in models and (model := store.model(name)) is not None:
            models[name] = model
    comparison = _comparison(session, found) if len(models) == 1 else None
    return [
        _model(rights, store, own, model, made.get(model.name, []), operation, comparison)
        for model in list(models.values())[:_MOST_MODELS]
    ]


def _model(
    rights: Rights,
    store: JobRuns,
    own: Mapping[str, JobRun],
    model: RegisteredModel,
    made: Sequence[RegisteredVersion],
    operation: str,
    comparison: tuple[Mapping[str, float], Mapping[str, float]] | None,
) -> RunModel:
    changes = _changes(model)
    by_run = _changes_by(model, operation)
    known = {each.version: each for each in (*store.versions_of_model(model.name), *made)}
    challenger = known.get(by_run[-1].version) if by_run else made[0] if made else None
    in_service = by_run[-1].before if by_run else model.aliases.get(CHAMPION, "")
    champion = known.get(in_service)
    if champion is not None and challenger is not None and champion.version == challenger.version:
        champion = None
    measured = _Measured(rights, store, own)
    decision, reason = (by_run[-1].kind, by_run[-1].why) if by_run else ("", "")
    if challenger is not None and not by_run:
        decision, reason = challenger.tags.get("decision", ""), challenger.tags.get("reason", "")
    shown: list[tuple[RegisteredVersion, Literal["champion", "challenger"]]] = []
    if champion is not None:
        shown.append((champion, "champion"))
    if challenger is not None:
        shown.append((challenger, "challenger"))
    return RunModel(
        name=model.name,
        versions=[measured.version(each, role, model) for each, role in shown],
        others=max(0, len(made) - (challenger in made)),
        metrics=_pairs(*(comparison or measured.both(champion, challenger))),
        compared=comparison is not None,
        decision=decision,
        reason=reason,
        changes=[
            ModelChange(
                kind=each.kind,
                version=each.version,
                before=each.before,
                at=each.at,
                by=each.by,
                why=each.why,
                is_of_run=each in by_run,
            )
            for each in changes[::-1][:_LISTED]
        ],
    )


class _Measured:
    """What is known of versions, as far as the user may see the runs that made them."""

    def __init__(self, rights: Rights, store: JobRuns, own: Mapping[str, JobRun]) -> None:
        self._rights = rights
        self._store = store
        self._own = own
        self._found: dict[str, JobRun | None] = {}

    def version(
        self, version: RegisteredVersion, role: Literal["champion", "challenger"], model: RegisteredModel
    ) -> ModelVersion:
        run = self._run(version)
        return ModelVersion(
            version=version.version,
            role=role,
            aliases=sorted(alias for alias, number in model.aliases.items() if number == version.version),
            created=version.created,
            mlflow_run_id=run.run_id if run else "",
            place=place_of(run) if run and run.dag_id else None,
        )

    def both(
        self, champion: RegisteredVersion | None, challenger: RegisteredVersion | None
    ) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Returns the metrics that both have: those that are tags of the versions, else those of their runs."""
        ways: tuple[Callable[[RegisteredVersion], Mapping[str, float]], ...] = (self._tags, self._metrics)
        for read in ways:
            of_champion = read(champion) if champion is not None else {}
            of_challenger = read(challenger) if challenger is not None else {}
            if challenger is None or champion is None:
                if of_champion or of_challenger:
                    return of_champion, of_challenger
            elif common := of_champion.keys() & of_challenger.keys():
                return {each: of_champion[each] for each in common}, {each: of_challenger[each] for each in common}
        return {}, {}

    def _tags(self, version: RegisteredVersion) -> Mapping[str, float]:
        if self._run(version) is None and version.run_id:
            return {}
        found = {}
        for name, text in version.tags.items():
            try:
                found[name] = float(text)
            except ValueError:
                continue  # a word
        return {name: value for name, value in found.items() if not name.startswith(("nemo_airflow.", "mlflow."))}

    def _metrics(self, version: RegisteredVersion) -> Mapping[str, float]:
        run = self._run(version)
        return run.metrics if run else {}

    def _run(self, version: RegisteredVersion) -> JobRun | None:
        run_id = version.run_id
        if run_id in self._own:
            return self._own[run_id]
        if run_id not in self._found:
            run = self._store.get(run_id) if run_id else None
            self._found[run_id] = run if run is not None and self._rights.may_read(run.dag_id) else None
        return self._found[run_id]


def _pairs(champion: Mapping[str, float], challenger: Mapping[str, float]) -> list[ModelMetric]:
    names = sorted({*champion, *challenger}, key=lambda name: (name not in champion or name not in challenger, name))
    return [
        ModelMetric(
            name=name,
            champion=to_number(champion[name]) if name in champion else None,
            challenger=to_number(challenger[name]) if name in challenger else None,
        )
        for name in names[:_MOST_METRICS]
    ]


def _comparison(session: Session, found: JobsOfRun) -> tuple[Mapping[str, float], Mapping[str, float]] | None:
    """Returns what a job of the run has returned of both: a mapping with ``champion`` and ``challenger``."""
    dag_run = found.dag_run
    tasks = {task for task, index in found.records if index < 0}
    rows = session.execute(
        select(XComModel.task_id, XComModel.value).where(
            XComModel.dag_id == dag_run.dag_id,
            XComModel.run_id == dag_run.run_id,
            XComModel.key == "return_value",
            XComModel.task_id.in_(tasks),
        )
    )
    for row in rows:
        value = XComModel.deserialize_value(row)
        if isinstance(value, Mapping) and {"champion", "challenger"} <= value.keys():
            champion, challenger = _numbers(value["champion"]), _numbers(value["challenger"])
            if challenger:
                return champion, challenger
    return None


def _numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return {}
    return {
        str(name): float(each)
        for name, each in value.items()
        if isinstance(each, (int, float)) and not isinstance(each, bool)
    }


def _changes(model: RegisteredModel) -> list[Change]:
    try:
        changes = parse_changes(model.tags.get(ALIAS_CHANGES.format(CHAMPION), ""))
    except ValueError:  # something else has written the tag
        return []
    return effective_changes(changes, model.aliases.get(CHAMPION, ""))


def _changes_by(model: RegisteredModel, operation: str) -> list[Change]:
    return [each for each in _changes(model) if each.operation.startswith(operation)]
