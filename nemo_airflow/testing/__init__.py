"""For tests: what runs tasks and configs in them, and the suite that every executor passes.

The fixtures ``run_task`` and ``run_config`` come with the installation, as a pytest plugin
(:mod:`nemo_airflow.testing.plugin`).
"""
