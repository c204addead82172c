"""A job is labelled with who started its DAG run."""

from types import SimpleNamespace

import pytest
from airflow.sdk import DAG

from nemo_airflow.operators.preparation import labels_of


@pytest.mark.parametrize(
    ("triggered_by", "owner", "user"),
    [("ann", "team", "ann"), (None, "team", "team"), (None, None, None)],
    ids=["who-triggered-it", "the-owner-of-what-was-due", "nobody"],
)
def test_job_has_the_user_who_triggered_its_run_else_the_owner_of_its_task(task_context, triggered_by, owner, user):
    context = task_context(DAG("dag"))
    context["dag_run"].triggering_user_name = triggered_by
    if owner is not None:
        context["task"] = SimpleNamespace(owner=owner)
    assert labels_of(context).get("user") == user
