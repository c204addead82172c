"""The typed API behind the pages: ``/nemo-airflow/api/v1``. Each module has a router and its answers."""
