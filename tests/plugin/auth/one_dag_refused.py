"""An auth manager for the tests of rights, which knows single DAGs beside the roles of Airflow's simple one."""

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class OneDagRefused(SimpleAuthManager):
    """The viewer ``otto`` may not read the DAG ``private``, ``uma`` not its XComs; ``rita`` reads ``shown`` alone.

    ``nora`` is logged in and may do nothing.
    """

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        """Refuses some DAGs to some."""
        dag_id = details.id if details is not None else None
        sees_no_xcoms = user.username == "uma" and access_entity is DagAccessEntity.XCOM
        if dag_id == "private" and (user.username == "otto" or sees_no_xcoms):
            return False
        if user.username == "nora" or (user.username == "rita" and dag_id != "shown"):
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
