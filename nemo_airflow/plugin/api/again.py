"""Starts a job again: its DAG with the run's values, some of them changed, or a DAG that reproduces it; and the command
lines for the rest.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.datamodels.dag_run import TriggerDAGRunPostBody
from airflow.api_fastapi.core_api.routes.public.dag_run import trigger_dag_run
from airflow.api_fastapi.logging.decorators import action_logging
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from nemo_airflow import settings
from nemo_airflow.exceptions import NemoAirflowError, OverrideError
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.operators.params import check_conf
from nemo_airflow.operators.preparation import changed_fields
from nemo_airflow.plugin.api.answers import Answer, Done
from nemo_airflow.plugin.api.dags import dag_bag
from nemo_airflow.plugin.api.found import FoundJob, FoundJobDep
from nemo_airflow.plugin.api.rights import Rights, RightsDep
from nemo_airflow.tracking.base import ARTIFACT
from nemo_airflow.tracking.mlflow.recorded import JOB, recorded_run

router = APIRouter(tags=["again"])

_log = logging.getLogger(__name__)

_RUN = "run"
"""The param of a DAG that reproduces runs."""


class ParamField(Answer):
    """A param of a DAG, as a field of a form.

    Attributes:
        name: Its name.
        title: Its name for people.
        description: What it is, or empty.
        section: Which part of the form it belongs to, or empty.
        json_schema: Its JSON schema, as JSON.
        value: Its value in the run, as JSON; empty where it has none.
        default: Its default, as JSON; empty where it has none.
    """

    name: str
    title: str
    description: str
    section: str
    json_schema: str
    value: str
    default: str


class AgainForm(Answer):
    """What a DAG can be started with for a job.

    Attributes:
        dag_id: The DAG.
        fields: Its params, with the values for this job.
        other_conf: What the run's conf has besides them, as a JSON object; empty where there is nothing.
        may_trigger: Whether the user may start it.
        is_paused: Whether the DAG is paused: its run would wait.
        why_not: Why it cannot be started, in one line; or empty.
    """

    dag_id: str
    fields: list[ParamField]
    other_conf: str = ""
    may_trigger: bool
    is_paused: bool = False
    why_not: str = ""


class NewRun(BaseModel):
    """What to start a DAG with.

    Attributes:
        conf: The values of its params, by name, and other values of the run's conf.
        note: Why, for people; or empty.
    """

    conf: dict[str, Any]
    note: str = ""


class Command(Answer):
    """A command line.

    Attributes:
        name: ``reproduce``, ``resume``, ``fetch``, ``shell``, ``diff`` or ``lineage``.
        text: The line.
    """

    name: str
    text: str


class Commands(Answer):
    """What can be done with a job from a command line.

    Attributes:
        commands: The lines.
    """

    commands: list[Command]


@router.get("/job/again")
def read_form(session: SessionDep, rights: RightsDep, found: FoundJobDep) -> AgainForm:
    """Returns the form to start a job's DAG again: its params, filled with the values of the job's run."""
    dag_id = found.place.dag_id
    dag = _dag(session, dag_id)
    if dag is None:
        why_not = "the DAG is not there any more" if dag_id else "no task has submitted this job, so there is no DAG"
        return AgainForm(dag_id=dag_id, fields=[], may_trigger=False, why_not=why_not)
    conf = _conf(session, found) if rights.may("GET", DagAccessEntity.RUN, dag_id) else {}
    others = {name: value for name, value in conf.items() if name not in dag.params}
    return _form(session, rights, dag, conf, others)


@router.get("/job/reproduce")
def read_reproduction_form(session: SessionDep, rights: RightsDep, found: FoundJobDep) -> AgainForm:
    """Returns the form to run exactly a job's run again: the params of the DAG that reproduces runs."""
    dag_id = settings.reproduce_dag()
    dag, why_not = _reproducing(session, found)
    if dag is None:
        return AgainForm(dag_id=dag_id, fields=[], may_trigger=False, why_not=why_not)
    if not rights.may_trigger(dag_id):  # who may perhaps not even see that DAG
        return AgainForm(dag_id=dag_id, fields=[], may_trigger=False)
    form = _form(session, rights, dag, {}, {})
    return form.model_copy(update={"fields": [field for field in form.fields if field.name != _RUN]})


@router.post("/job/reproduce", dependencies=[Depends(action_logging("nemo_reproduce"))])
def reproduce(request: Request, session: SessionDep, rights: RightsDep, found: FoundJobDep, body: NewRun) -> Done:
    """Starts the DAG that reproduces runs for the run of this job, whatever run the values name."""
    rights.need(rights.may_trigger(settings.reproduce_dag()))
    dag, why_not = _reproducing(session, found)
    if dag is None or found.run is None:
        raise HTTPException(404, f"Nothing was started: {why_not}")
    _check(body.conf, dag.params)
    conf = {**body.conf, _RUN: found.run.run_id}
    return _start(request, session, rights, dag.dag_id, NewRun(conf=conf, note=body.note))


def _reproducing(session: Session, found: FoundJob) -> tuple[Any, str]:
    """Returns the DAG that reproduces runs, or None and why this job cannot be reproduced by it."""
    if found.run is None:
        return None, "MLflow has no run of this job"
    dag_id = settings.reproduce_dag()
    dag = _dag(session, dag_id)
    if dag is None:
        return None, f"there is no DAG {dag_id}: copy dags/reproduce_run.py, or name one by the setting reproduce_dag"
    if _RUN not in dag.params:
        return None, f"the DAG {dag_id} has no param {_RUN!r}, which takes the run"
    return dag, ""


def _form(session: Session, rights: Rights, dag: Any, conf: Mapping[str, Any], others: Mapping[str, Any]) -> AgainForm:
    """Returns the form of a DAG.

    Args:
        session: Of Airflow's database.
        rights: The user's.
        dag: The DAG.
        conf: Values of its params, by name; their defaults where it has none.
        others: Other values of the run's conf.
    """
    fields = []
    for name, param in dag.params.items():
        known = param.dump()
        schema = known.get("schema") or {}
        fields.append(
            ParamField(
                name=name,
                title=str(schema.get("title") or name),
                description=str(known.get("description") or ""),
                section=str(schema.get("section") or ""),
                json_schema=json.dumps({key: each for key, each in schema.items() if key not in ("title", "section")}),
                value=_json(conf[name]) if name in conf else _json(known.get("value")),
                default=_json(known.get("value")),
            )
        )
    return AgainForm(
        dag_id=dag.dag_id,
        fields=fields,
        other_conf=json.dumps(others, indent=2) if others else "",
        may_trigger=rights.may_trigger(dag.dag_id),
        is_paused=bool(session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == dag.dag_id))),
    )


@router.post("/job/again", dependencies=[Depends(action_logging("nemo_trigger_again"))])
def trigger_again(request: Request, session: SessionDep, rights: RightsDep, found: FoundJobDep, body: NewRun) -> Done:
    """Starts a job's DAG with these values, as Airflow's own form does. Nothing is started where one is wrong."""
    dag_id = found.place.dag_id
    rights.need(rights.may_trigger(dag_id))
    dag = _dag(session, dag_id)
    if dag is None:
        raise HTTPException(404, f"DAG {dag_id} is not there any more.")
    _check(body.conf, {*dag.params, *_conf(session, found)})
    return _start(request, session, rights, dag_id, body)


def _check(conf: Mapping[str, Any], known: Collection[str]) -> None:
    try:
        check_conf(conf, known)
    except OverrideError as error:
        raise HTTPException(422, f"Nothing was started: {error}") from error


def _start(request: Request, session: Session, rights: Rights, dag_id: str, body: NewRun) -> Done:
    """Starts a DAG, as Airflow's own form does. Nothing is started where a value is wrong."""
    try:
        run: Any = trigger_dag_run(  # the row; its annotation is of what Airflow makes of it
            dag_id=dag_id,
            body=TriggerDAGRunPostBody(logical_date=None, conf=body.conf, note=body.note or None),
            dag_bag=dag_bag(),
            user=rights.user,
            session=session,
            request=request,
        )
    except HTTPException as error:
        line = " ".join(str(error.detail).split())
        raise HTTPException(error.status_code, f"Nothing was started: {line}") from error
    except ValueError as error:
        raise HTTPException(422, f"Nothing was started: {' '.join(str(error).split())}") from error
    return Done(message=f"Run {run.run_id} is started.", url=f"dags/{quote(dag_id)}/runs/{quote(run.run_id)}")


@router.get("/job/commands")
def list_commands(found: FoundJobDep) -> Commands:
    """Returns the command lines for what a page cannot do."""
    run_id, tags = (found.run.run_id, found.run.tags) if found.run else ("", {})
    conn_id = found.source.conn_id if found.source else None
    where = f" --conn-id {shlex.quote(conn_id)}" if conn_id else ""
    lines: dict[str, str] = {}
    if run_id:
        lines["reproduce"] = f"nemo-airflow reproduce {run_id}{where}"
        lines["resume"] = f"nemo-airflow resume {run_id}{where}"
        lines["diff"] = f"nemo-airflow diff --last-good {run_id}{where}"
        lines["lineage"] = f"nemo-airflow lineage {run_id}{where}"
    names = sorted(tag.removeprefix(ARTIFACT) for tag in tags if tag.startswith(ARTIFACT))
    if names:
        lines["fetch"] = f"nemo-airflow fetch {shlex.quote(f'{run_id}/{names[0]}')}{where}"
    if executor := _executor(found):
        lines["shell"] = f"nemo-airflow shell {found.key} --executor {shlex.quote(executor)}"
    return Commands(commands=[Command(name=name, text=text) for name, text in lines.items()])


def _executor(found: FoundJob) -> str:
    """Returns the executor of a job in the form that commands take, without its variables; empty if it is not known."""
    if found.run is None or found.source is None:
        return ""
    try:
        run = recorded_run(found.run.run_id, found.source.tracking_uri, found.source.conn_id, (JOB,))
        recorded = run.asked.get("executor") or {}
        fields = {name: value for name, value in recorded.items() if name not in ("env", "secrets", "inherit_env")}
        return json.dumps(changed_fields(executor_from_json(fields))) if fields else ""
    except NemoAirflowError as error:  # of a release that had other fields, or MLflow is away
        _log.info("no command line for a shell in job %s: %s", found.key, error)
        return ""


def _dag(session: Session, dag_id: str) -> Any:
    return dag_bag().get_latest_version_of_dag(dag_id, session=session) if dag_id else None


def _conf(session: Session, found: FoundJob) -> Mapping[str, Any]:
    """Returns the conf of a job's DAG run."""
    place = found.place
    conf = session.scalar(select(DagRun.conf).where(DagRun.dag_id == place.dag_id, DagRun.run_id == place.dag_run_id))
    return conf if isinstance(conf, Mapping) else {}


def _json(value: Any) -> str:
    return "" if value is None else json.dumps(value)
