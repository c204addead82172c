"""Prints the request to a back-end for a config, without sending it."""

from __future__ import annotations

from collections.abc import Sequence

from nemo_airflow.cli.output import JSON, print_json
from nemo_airflow.cli.plan import compose_config, write_plan
from nemo_airflow.cli.reap import load_executor
from nemo_airflow.config import plan as plans
from nemo_airflow.job import Job
from nemo_airflow.keys import job_key


def run(
    name: str, overrides: Sequence[str], executor: str, *, layers: Sequence[str], allow: Sequence[str], output: str
) -> int:
    """Prints the request for a config, as a task would send it; see :func:`nemo_airflow.cli.plan.compose_config`."""
    where = load_executor(executor)
    config = compose_config(name, overrides, layers, allow)
    plan = write_plan(config)
    key = job_key({"digest": plans.digest(plan)}, name=name, attempt=1)
    job = Job(key=key, name=name, plan=plan, allow=tuple(plans.targets(plan)))
    request = where.render(job)
    if output == JSON:
        print_json({name: getattr(request, name) for name in ("key", "kind", "payload", "files", "secrets")})
    else:
        print(request.to_text(), end="")
    return 0
