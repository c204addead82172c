"""Prints what would be sent to a back-end for a config, without sending it."""

from __future__ import annotations

from collections.abc import Sequence

from nemo_airflow.cli.plan import load_config
from nemo_airflow.cli.reap import load_executor
from nemo_airflow.config import apply_overrides, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.job import Job
from nemo_airflow.keys import job_key


def run(name: str, overrides: Sequence[str], executor: str) -> int:
    """Prints the request for the config that ``pkg.mod:name`` names, as a task would send it."""
    where = load_executor(executor)
    config = load_config(name)
    if overrides:
        config = apply_overrides(config, overrides)
    validate(config)
    plan = plans.to_plan(config)
    key = job_key({"digest": plans.digest(plan)}, name=name, attempt=1)
    job = Job(key=key, name=name, plan=plan, allow=tuple(plans.targets(plan)))
    print(where.render(job).to_text(), end="")
    return 0
