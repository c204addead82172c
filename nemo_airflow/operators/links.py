"""Links from a task's page to where its job can be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

from nemo_airflow import settings
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.job import JobHandle
from nemo_airflow.web_address import web_address

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

_RAY_PAGE = "{cluster}/#/jobs/{id}"


class MLflowRunLink(BaseOperatorLink):
    """The task attempt's run in MLflow."""

    name = "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Returns the address that the operator knows or has pushed, if it is one of the web; else an empty string.

        In the process that submitted the job the operator knows it: no need to ask Airflow's server.
        """
        if (page := getattr(operator, "run_page", None)) is not None:
            return web_address(page)
        return web_address(XCom.get_value(ti_key=ti_key, key=self.xcom_key))


class JobLink(BaseOperatorLink):
    """The tab of the job on the task's page."""

    name = "Job"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Returns the address of the tab."""
        return _tab(ti_key)


class ComparisonLink(BaseOperatorLink):
    """The config on that tab, with what has changed since the run before."""

    name = "Compare with previous"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Returns the address of the page."""
        return f"{tab}?section=config&changed=1" if (tab := _tab(ti_key)) else ""


class BackEndLink(BaseOperatorLink):
    """The job in its back-end's own console: Ray's dashboard, or what the setting ``consoles`` names."""

    name = "Back-end"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Returns the address that the operator knows or has pushed; an empty string where there is none."""
        if (page := getattr(operator, "console_page", None)) is not None:
            return web_address(page)
        return web_address(XCom.get_value(ti_key=ti_key, key=self.xcom_key))


def console_page(handle: JobHandle, warn: Callable[[str], None]) -> str:
    """Returns the address of a job in its back-end's console; an empty string where there is none.

    Args:
        handle: The job.
        warn: Called with what is wrong with the setting: the job runs, whatever that is.
    """
    try:
        consoles = settings.consoles()
    except SettingsError as error:
        warn(str(error))
        return ""
    pattern = consoles.get(handle.kind, _RAY_PAGE if handle.kind == "ray" else "")
    address = pattern.replace("{cluster}", handle.cluster)
    for name in ("id", "key"):
        address = address.replace(f"{{{name}}}", quote(getattr(handle, name), safe=""))
    return web_address(address)


def _tab(ti_key: Any) -> str:
    mapped = f"/mapped/{ti_key.map_index}" if _is_mapped(ti_key) else ""
    path = f"dags/{quote(ti_key.dag_id)}/runs/{quote(ti_key.run_id)}/tasks/{quote(ti_key.task_id)}{mapped}"
    return web_address(f"{_base_url()}/{path}/plugin/nemo_job")


def _base_url() -> str:
    from airflow.sdk.configuration import conf

    return str(conf.get("api", "base_url", fallback="http://localhost:8080")).rstrip("/")


def _is_mapped(ti_key: Any) -> bool:
    return ti_key.map_index is not None and ti_key.map_index >= 0
