"""Ends and clears the tasks of jobs, several at once, as Airflow's own pages do."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.datamodels.task_instances import ClearTaskInstancesBody, PatchTaskInstanceBody
from airflow.api_fastapi.core_api.routes.public.task_instances import patch_task_instance, post_clear_task_instances
from airflow.api_fastapi.logging.decorators import action_logging
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from nemo_airflow.plugin.api.answers import Answer, JobPlace
from nemo_airflow.plugin.api.dags import dag_bag
from nemo_airflow.plugin.api.found import RECORD, read_tasks, read_xcoms
from nemo_airflow.plugin.api.phases import ACTIVE
from nemo_airflow.plugin.api.rights import RightsDep

_log = logging.getLogger(__name__)

router = APIRouter(tags=["runs"])

_AT_ONCE = 200

_REFUSED = "You may not do this in Airflow."
_BUSY = "Airflow's database is busy: try again."
_TRIES, _PAUSE = 5, 0.2
"""How often a job is tried, and the seconds between."""

_GONE = "Airflow has no job of this task any more."


class Places(BaseModel):
    """The jobs of an action.

    Attributes:
        places: Their task instances.
    """

    places: Annotated[list[JobPlace], Field(min_length=1, max_length=_AT_ONCE)]


class JobDone(Answer):
    """What an action has come to for one job.

    Attributes:
        place: Its task instance.
        done: Whether it was done.
        message: What was done, or why not, in one line.
    """

    place: JobPlace
    done: bool
    message: str


class JobsDone(Answer):
    """What an action has come to.

    Attributes:
        jobs: For each job, in the order in which they were named.
    """

    jobs: list[JobDone]


@router.post("/runs/stop", dependencies=[Depends(action_logging("nemo_stop_jobs"))])
def stop_runs(session: SessionDep, rights: RightsDep, body: Places) -> JobsDone:
    """Sets the tasks of jobs to failed, whereupon their jobs are cancelled on their back-ends."""

    def stop(task: TaskInstance) -> str:
        if task.state not in ACTIVE:
            raise HTTPException(409, f"The task has ended already: {task.state}.")
        patch_task_instance(
            dag_id=task.dag_id,
            dag_run_id=task.run_id,
            task_id=task.task_id,
            map_index=task.map_index,
            dag_bag=dag_bag(),
            body=PatchTaskInstanceBody(new_state="failed"),
            user=rights.user,
            session=session,
            update_mask=None,
        )
        return "The task is set to failed, and its job is being cancelled."

    return _for_each(session, rights, body.places, "nemo_stop_job", stop)


@router.post("/runs/clear", dependencies=[Depends(action_logging("nemo_clear_jobs"))])
def clear_runs(session: SessionDep, rights: RightsDep, body: Places) -> JobsDone:
    """Clears the tasks of jobs and what comes after them, whereupon they run again."""

    def clear(task: TaskInstance) -> str:
        wanted: Any = (task.task_id, task.map_index) if task.map_index >= 0 else task.task_id
        answer = post_clear_task_instances(
            dag_id=task.dag_id,
            dag_bag=dag_bag(),
            body=ClearTaskInstancesBody(
                dry_run=False,
                only_failed=False,
                include_downstream=True,
                dag_run_id=task.run_id,
                task_ids=[wanted],
            ),
            session=session,
            user=rights.user,
        )
        more = (answer.total_entries or 1) - 1
        return "The task runs again" + (f", and {more} after it." if more > 0 else ".")

    return _for_each(session, rights, body.places, "nemo_clear_job", clear)


def _for_each(
    session: Session, rights: RightsDep, places: Sequence[JobPlace], event: str, act: Callable[[TaskInstance], str]
) -> JobsDone:
    """Acts on each job of which the user may; what is refused or fails keeps none of the others from it."""
    allowed = {place for place in places if rights.may_read(place.dag_id) and rights.may_stop(place.dag_id)}
    rights.need(bool(allowed))
    records = read_xcoms(session, RECORD, allowed)
    done = []
    for place in dict.fromkeys(places):
        if place not in allowed or place not in records:
            done.append(JobDone(place=place, done=False, message=_GONE if place in allowed else _REFUSED))
        else:
            done.append(_act_on(session, place, act, functools.partial(_entry, rights, event, place)))
    return JobsDone(jobs=done)


def _act_on(
    session: Session, place: JobPlace, act: Callable[[TaskInstance], str], make_entry: Callable[[], Log]
) -> JobDone:
    """Acts on one job in a transaction of its own: tasks write to the same tables."""
    for _ in range(_TRIES):
        session.rollback()  # what was read before that may be older than what is written
        task = read_tasks(session, [place]).get(place)
        if task is None:
            return JobDone(place=place, done=False, message=_GONE)
        try:
            message = act(task)
            session.add(make_entry())
            session.commit()
            return JobDone(place=place, done=True, message=message)
        except HTTPException as error:
            session.rollback()
            return JobDone(place=place, done=False, message=str(error.detail))
        except OperationalError as error:
            _log.info("the task of %s is tried again: %s", place, error)
            time.sleep(_PAUSE)
    session.rollback()
    return JobDone(place=place, done=False, message=_BUSY)


def _entry(rights: RightsDep, event: str, place: JobPlace) -> Log:
    """Returns an entry of the audit log that those see who see the DAG's: the one of the request names no DAG."""
    name = rights.user.get_name()
    entry = Log(event=event, owner=name, owner_display_name=name, dag_id=place.dag_id, task_id=place.task_id)
    entry.run_id = place.dag_run_id
    entry.map_index = place.map_index
    return entry
