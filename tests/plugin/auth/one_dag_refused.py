"""An auth manager whose viewer ``otto`` may not read one DAG, and ``uma`` not its XComs."""

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class OneDagRefused(SimpleAuthManager):
    """Airflow's simple auth manager, which knows roles but no rights of single DAGs."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        """Refuses the DAG ``private`` to some."""
        is_private = details is not None and details.id == "private"
        sees_no_xcoms = user.username == "uma" and access_entity is DagAccessEntity.XCOM
        if is_private and (user.username == "otto" or sees_no_xcoms):
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
