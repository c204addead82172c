"""All routes of the API."""

from __future__ import annotations

from fastapi import APIRouter

from nemo_airflow.plugin.api import (
    again,
    back_ends,
    code,
    compare,
    config,
    dag_run,
    dag_run_models,
    files,
    job,
    metrics,
    notes,
    origins,
    overview,
    run_actions,
    runs,
)

_MODULES = (
    runs,
    run_actions,
    overview,
    dag_run,
    dag_run_models,
    job,
    metrics,
    config,
    compare,
    back_ends,
    code,
    files,
    origins,
    notes,
    again,
)


def make_router() -> APIRouter:
    """Returns the router of the whole API."""
    router = APIRouter()
    for module in _MODULES:
        router.include_router(module.router)
    return router
