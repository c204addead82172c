"""The pages in Airflow's web UI, and their API."""

from __future__ import annotations

from typing import Any

from airflow.sdk.plugins_manager import AirflowPlugin

PREFIX = "/nemo-airflow"

_STATIC = "nemo-airflow/static"
"""Address of the built pages. Relative, since Airflow's page has a ``<base>`` and may be served below any path."""


def _page(name: str, entry: str, destination: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "bundle_url": f"{_STATIC}/{entry}.js", "destination": destination, **more}


def _icons(name: str) -> dict[str, str]:
    return {"icon": f"{_STATIC}/{name}.svg", "icon_dark_mode": f"{_STATIC}/{name}-dark.svg"}


class _LazyApp:
    """Builds the FastAPI app only when the API server needs it, since every worker loads plugins too."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from nemo_airflow.plugin.app import app

        await app()(scope, receive, send)


class NemoAirflowPlugin(AirflowPlugin):
    """The pages: all experiments, one job, the jobs of a DAG run, the back-ends, and jobs at a glance at home."""

    name = "nemo_airflow"
    fastapi_apps: list[dict[str, Any]] = [  # noqa: RUF012 - as Airflow declares it
        {"app": _LazyApp(), "url_prefix": PREFIX, "name": "nemo-airflow"}
    ]
    # Each name becomes a global variable of Airflow's page: none may be one that browsers have.
    react_apps: list[dict[str, Any]] = [  # noqa: RUF012 - as Airflow declares it
        _page(
            "Experiments",
            "experiments",
            "nav",
            url_route="nemo_experiments",
            nav_top_level=True,
            **_icons("experiments"),
        ),
        _page("Back-ends", "backEnds", "nav", url_route="nemo_back_ends", category="admin", **_icons("back-ends")),
        _page(
            "Job",
            "job",
            "task_instance",
            url_route="nemo_job",
            applies_to={"operator_name": ["NemoRunOperator", "@task.nemo"]},  # from Airflow 3.4 on
        ),
        _page("Jobs", "dagRun", "dag_run", url_route="nemo_jobs"),
        _page("Jobs at a glance", "widget", "dashboard"),
    ]

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Imports what tasks need, where this process forks them."""
        from nemo_airflow.plugin.preloading import preload

        preload()
