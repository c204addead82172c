"""Links from a task's page to where its job can be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

from nemo_airflow.web_address import web_address

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator


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
