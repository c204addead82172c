"""What the user of a request may do, by Airflow's own rights: apps of plugins are open to everyone unless they ask.

A job may be seen by those who may read the XComs of its DAG, where its task leaves its record. A job of no DAG, which
was launched from a command line, may be seen by those who may read all DAGs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException

Method = Literal["GET", "POST", "PUT", "DELETE"]


class Rights:
    """The rights of one user, each asked for once in a request."""

    def __init__(self, user: Any) -> None:
        self.user = user
        self._known: dict[tuple[str, DagAccessEntity, str], bool] = {}

    def may(self, method: Method, entity: DagAccessEntity, dag_id: str) -> bool:
        """Returns whether the user may do this with a DAG; with all DAGs for an empty id."""
        key = (method, entity, dag_id)
        if key not in self._known:
            details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)) if dag_id else None
            self._known[key] = get_auth_manager().is_authorized_dag(
                method=method, access_entity=entity, details=details, user=self.user
            )
        return self._known[key]

    def may_read(self, dag_id: str) -> bool:
        """Returns whether the user may see the jobs of a DAG."""
        return self.may("GET", DagAccessEntity.XCOM, dag_id)

    def may_stop(self, dag_id: str) -> bool:
        """Returns whether the user may end and clear the tasks of a DAG."""
        return bool(dag_id) and self.may("PUT", DagAccessEntity.TASK_INSTANCE, dag_id)

    def may_trigger(self, dag_id: str) -> bool:
        """Returns whether the user may start runs of a DAG."""
        return bool(dag_id) and self.may("POST", DagAccessEntity.RUN, dag_id)

    def need(self, allowed: bool) -> None:
        """Refuses the request unless it is allowed, with no word on whether what it is about exists."""
        if not allowed:
            raise HTTPException(403, "You may not do this in Airflow: ask who gives the rights on this DAG.")


def _rights(user: GetUserDep) -> Rights:
    return Rights(user)


RightsDep = Annotated[Rights, Depends(_rights)]
