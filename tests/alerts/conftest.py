import airflow.settings  # noqa: F401 - its logging holds on to the output that is there when it is imported first
