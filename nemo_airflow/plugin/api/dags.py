"""The DAGs as Airflow's database has them."""

from __future__ import annotations

import functools
from typing import Any

from airflow.api_fastapi.common.dagbag import create_dag_bag


@functools.cache
def dag_bag() -> Any:
    """Returns the DAGs; Airflow's own API has its cache of them in another app."""
    return create_dag_bag()
