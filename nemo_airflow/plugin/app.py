"""The plugin's web app: the built pages, and the typed API behind them."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from sqlalchemy.exc import OperationalError

from nemo_airflow.plugin.api.routes import make_router
from nemo_airflow.plugin.few_at_once import FewAtOnce
from nemo_airflow.tracking.mlflow.rest import pause_after_silence

_log = logging.getLogger(__name__)

_PAUSE = 15.0
"""Seconds for which an MLflow that did not answer is not asked again."""

STATIC = Path(__file__).with_name("static")
"""The built pages; see ``ui/`` in the repository."""


@functools.cache
def app() -> FastAPI:
    """Returns the app; created once in a process, at the first request, and what suits a server of many people."""
    pause_after_silence(_PAUSE)
    return make_app()


def make_app() -> FastAPI:
    """Returns a new app, and changes nothing else in this process."""
    api = FastAPI(title="nemo-airflow", docs_url=None, redoc_url=None, openapi_url=None)
    api.include_router(make_router(), prefix="/api/v1")
    api.add_middleware(FewAtOnce)
    api.add_exception_handler(OperationalError, _say_busy)
    api.mount("/static", Bundle(directory=STATIC, check_dir=False))
    return api


def _say_busy(request: Request, error: Exception) -> Response:
    """Answers where Airflow's database does not: it is locked, restarted, or out of connections."""
    _log.warning("%s was not answered: %s", request.url.path, getattr(error, "orig", type(error).__name__))
    return JSONResponse({"detail": "Airflow's database does not answer just now: try again."}, 503)


class Bundle(StaticFiles):
    """The built pages. Browsers ask each time whether an entry is new; what is named by its content never changes."""

    def file_response(self, full_path: Any, *args: Any, **kwargs: Any) -> Response:
        """See the base class."""
        response = super().file_response(full_path, *args, **kwargs)
        is_fixed = Path(full_path).parent.name == "assets"
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_fixed else "no-cache"
        return response
