"""Runs a config on a back-end without a DAG: submitted once, followed, tracked and kept as the job of a task is."""
