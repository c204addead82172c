"""Writes the OpenAPI document of the API: ``python -m nemo_airflow.plugin.api.document FILE``.

The types of the pages are generated from it, and so are the tests of rights: a new route cannot be forgotten.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from nemo_airflow.plugin.api.routes import make_router


def make_document() -> dict[str, Any]:
    """Returns the OpenAPI document."""
    app = FastAPI(
        title="nemo-airflow",
        version="1",
        description="Jobs of Airflow's tasks, their runs in MLflow, and the back-ends where they run.",
    )
    app.include_router(make_router(), prefix="/nemo-airflow/api/v1")
    return app.openapi()


def main(arguments: list[str]) -> None:
    """Writes the document into a file."""
    Path(arguments[0]).write_text(json.dumps(make_document(), indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
