"""Each hour, cancels jobs that no task waits for any more, on the back-ends of the variable ``nemo_airflow_executors``.

The variable is a JSON list of executors, such as ``[{"kind": "slurm", "ssh_conn_id": "cluster"}]``; without it, local
jobs are cancelled.
"""

import datetime

from airflow.sdk import DAG, Param

from nemo_airflow.operators import NemoReapOperator

with DAG(
    "end_orphans",
    schedule="@hourly",
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    catchup=False,
    max_active_runs=1,
    params={
        "cancel": Param(True, type="boolean", description="Cancel them, and not only say which they are."),
        "min_age": Param(300, type="number", minimum=0, description="Let be what was submitted fewer seconds ago."),
    },
    render_template_as_native_obj=True,
    doc_md=__doc__,
    tags=["nemo", "maintenance"],
):
    NemoReapOperator(
        task_id="end_orphans",
        executors="{{ var.json.get('nemo_airflow_executors', [{'kind': 'local'}]) }}",
        cancel="{{ params.cancel }}",
        min_age="{{ params.min_age }}",
    )
