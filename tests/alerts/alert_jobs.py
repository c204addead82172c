import json
import time
from pathlib import Path

from nemo_airflow.runner import log_metrics


def diverge(gate: str) -> None:
    """Reports a loss that grows, and ends once somebody was told, or after a while."""
    for step in range(400):
        log_metrics({"loss": float(step)}, step=step)
        if Path(gate).exists():
            return
        time.sleep(0.05)
    raise RuntimeError("nobody was told")


async def tell(gate: str, context: dict) -> None:
    """A callback for Airflow's triggerer; notes each call."""
    with Path(gate).open("a") as file:
        file.write(json.dumps({**context["alert"], "task": context["ti"].task_id, "reason": context["reason"]}) + "\n")
