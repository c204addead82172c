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
        """Returns the address that the operator pushed, or an empty string; only ``http`` and ``https`` are links."""
        return web_address(XCom.get_value(ti_key=ti_key, key=self.xcom_key))
