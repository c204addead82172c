"""Hooks of back-ends' connections: Airflow's **Test** button examines a back-end as ``nemo-airflow doctor`` does."""

from __future__ import annotations

from typing import ClassVar

from airflow.sdk import BaseHook

from nemo_airflow.connections import get_connection
from nemo_airflow.doctor.back_ends import examine_executor, executor_of
from nemo_airflow.doctor.summary import summarize
from nemo_airflow.exceptions import NemoAirflowError, SettingsError
from nemo_airflow.executors.base import Executor


class BackEndHook(BaseHook):
    """Knows the back-end that a connection names.

    Args:
        conn_id: Id of the connection; that of ``default_conn_name`` unless given.
    """

    conn_name_attr = "conn_id"
    default_conn_name: ClassVar[str] = ""
    conn_type: ClassVar[str] = ""
    hook_name: ClassVar[str] = ""

    def __init__(self, conn_id: str | None = None) -> None:
        super().__init__()
        self.conn_id = conn_id or self.default_conn_name

    def get_conn(self) -> Executor:
        """Returns an executor for jobs of the back-end, with all but the connection as it is unless given.

        Raises:
            SettingsError: The connection is not defined, or of a type that no executor uses.
        """
        connection = get_connection(self.conn_id)
        executor = executor_of(connection)
        if executor is None:
            raise SettingsError(
                f"connection {self.conn_id!r} has the type {connection.conn_type!r}, which no executor uses: set it to "
                f"{self.conn_type}"
            )
        return executor

    def test_connection(self) -> tuple[bool, str]:
        """Examines the back-end; returns whether jobs can run there, and what was found: a line each, failures first.

        Blocks, two minutes at most.
        """
        try:
            executor = self.get_conn()
        except NemoAirflowError as error:
            return False, str(error)
        return summarize(examine_executor(executor))


class SlurmHook(BackEndHook):
    """A cluster with Slurm that is reached by SSH."""

    default_conn_name = "nemo_slurm_default"
    conn_type = "nemo_slurm"
    hook_name = "NeMo cluster (Slurm)"


class RayHook(BackEndHook):
    """A Ray cluster, by the address of its dashboard."""

    default_conn_name = "nemo_ray_default"
    conn_type = "nemo_ray"
    hook_name = "NeMo cluster (Ray)"


class SkypilotHook(BackEndHook):
    """SkyPilot's API server, and the clouds behind it."""

    default_conn_name = "nemo_skypilot_default"
    conn_type = "nemo_skypilot"
    hook_name = "NeMo clouds (SkyPilot)"
