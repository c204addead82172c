"""What all answers of the API are made of."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Number: TypeAlias = float | Literal["NaN", "Infinity", "-Infinity"]
"""A number, as JSON has it: a text for what JSON has no number for."""


def to_number(value: float) -> Number:
    """Returns a number for an answer."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


class Answer(BaseModel):
    """An answer, or a part of one."""

    model_config = ConfigDict(frozen=True)


class TrackerState(Answer):
    """The MLflow that an answer is from.

    Attributes:
        uri: Its address, without a login.
        away: Why it does not answer; empty if it does.
    """

    uri: str = ""
    away: str = ""


class JobPlace(Answer):
    """The task instance of a job; empty texts for a job that no task has submitted.

    Attributes:
        dag_id: Its DAG.
        dag_run_id: The DAG run.
        task_id: The task.
        map_index: Its number where the task is mapped, else -1.
    """

    dag_id: str = ""
    dag_run_id: str = ""
    task_id: str = ""
    map_index: int = -1


class Done(Answer):
    """An action was done.

    Attributes:
        message: What was done, in one line.
        url: Where it can be seen, below Airflow's base; or empty.
    """

    message: str
    url: str = Field(default="")
