"""The pages in Airflow's web UI, and their API."""

from __future__ import annotations

from typing import Any

from airflow.sdk.plugins_manager import AirflowPlugin

PREFIX = "/nemo-airflow"

_PAGE = "nemo-airflow/job"
"""Address of the page. Relative, since Airflow's page has a ``<base>`` and may be served below any path."""


class _LazyApp:
    """Builds the FastAPI app only when the API server needs it, since every worker loads plugins too."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from nemo_airflow.plugin.app import app

        await app()(scope, receive, send)


class NemoAirflowPlugin(AirflowPlugin):
    """A tab on each task instance that shows its job: config, code and back-end."""

    name = "nemo_airflow"
    fastapi_apps: list[dict[str, Any]] = [  # noqa: RUF012 - as Airflow declares it
        {"app": _LazyApp(), "url_prefix": PREFIX, "name": "nemo-airflow"}
    ]
    external_views: list[dict[str, Any]] = [  # noqa: RUF012 - as Airflow declares it
        {
            "name": "Job",
            "href": f"{_PAGE}?dag_id={{DAG_ID}}&run_id={{RUN_ID}}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}",
            "destination": "task_instance",
            "url_route": "nemo_job",
        }
    ]

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Imports what tasks need, where this process forks them."""
        from nemo_airflow.plugin.preloading import preload

        preload()
