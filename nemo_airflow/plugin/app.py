"""The plugin's web app: a page and its JSON for one task instance's job.

Only users who may see a DAG's XComs in Airflow may see its jobs here: apps of plugins are
open to everyone unless they check the user themselves.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Annotated, Any

import jinja2
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.xcom import XComModel
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import HTMLResponse
from sqlalchemy import select

from nemo_airflow.comparison.records import changes
from nemo_airflow.job import without_patch
from nemo_airflow.plugin import pictures
from nemo_airflow.web_address import web_address

JOB_KEY = "nemo_job"

_LISTED = 20
"""Most earlier runs that the page offers for comparison."""

_READ_XCOM = [Depends(requires_access_dag("GET", DagAccessEntity.XCOM))]


@functools.cache
def app() -> FastAPI:
    """Returns the app; created once in a process, at the first request."""
    api = FastAPI(title="nemo-airflow", docs_url=None, redoc_url=None, openapi_url=None)
    api.add_api_route("/job", _page, response_class=HTMLResponse, dependencies=_READ_XCOM)
    api.add_api_route("/api/job", _record, dependencies=_READ_XCOM)
    return api


def _record(
    session: SessionDep, dag_id: str, run_id: str, task_id: str, map_index: Annotated[str, Query()] = "-1"
) -> dict[str, Any]:
    """Returns the operator's record of the newest attempt's job."""
    record = _find(session, dag_id, run_id, task_id, _index(map_index))
    if record is None:
        raise HTTPException(404, f"no job was submitted for {dag_id}.{task_id} in {run_id}")
    return record


def _page(
    session: SessionDep,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: Annotated[str, Query()] = "-1",
    against: Annotated[str, Query()] = "",
) -> HTMLResponse:
    """Returns the page of a job, compared with another run's or the previous one; or a page without a job."""
    index = _index(map_index)
    record = _find(session, dag_id, run_id, task_id, index)
    others = _earlier(session, dag_id, run_id, task_id, index) if record is not None else []
    against = against or (others[0] if others else "")
    other = _find(session, dag_id, against, task_id, index) if against and record is not None else None
    tree, flowchart = pictures.picture(other, record) if record is not None else ([], "")
    return HTMLResponse(
        _template().render(
            record=record,
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            map_index=index,
            others=others,
            against=against,
            other=other,
            changes=changes(other, record) if other is not None and record is not None else [],
            tree=tree,
            flowchart=flowchart,
        ),
        headers={"Content-Security-Policy": _policy(), "X-Content-Type-Options": "nosniff"},
    )


def _index(text: str) -> int:
    # Airflow leaves the placeholder empty for a task that is not mapped.
    try:
        return int(text)
    except ValueError:
        return -1


def _find(session: Any, dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any] | None:
    query = XComModel.get_many(key=JOB_KEY, dag_ids=dag_id, run_id=run_id, task_ids=task_id, map_indexes=map_index)
    row = session.scalars(query.limit(1)).first()
    record = XComModel.deserialize_value(row) if row is not None else None
    if not isinstance(record, dict):
        return None
    if isinstance(package := record.get("package"), dict):  # records of earlier releases have the patch itself
        record["package"] = without_patch(package)
    return record


def _earlier(session: Any, dag_id: str, run_id: str, task_id: str, map_index: int) -> list[str]:
    """Returns the runs with earlier jobs of this task, the newest first."""
    job = (
        XComModel.key == JOB_KEY,
        XComModel.dag_id == dag_id,
        XComModel.task_id == task_id,
        XComModel.map_index == map_index,
    )
    submitted = session.scalar(select(XComModel.timestamp).where(*job, XComModel.run_id == run_id))
    before = select(XComModel.run_id).where(*job, XComModel.run_id != run_id, XComModel.timestamp < submitted)
    return list(session.scalars(before.order_by(XComModel.timestamp.desc()).limit(_LISTED)))


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(when=_when, web_address=web_address)
    environment.globals.update(style=_file("job.css"), script=_file("job.js"))
    return environment.from_string(_file("job.html.jinja2"))


@functools.cache
def _policy() -> str:
    """Returns the page's Content-Security-Policy: only its own script and styles, by their digests."""
    return (
        f"default-src 'none'; script-src {_digest(_file('job.js'))}; style-src {_digest(_file('job.css'))}; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _when(timestamp: float) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
