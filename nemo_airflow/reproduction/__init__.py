"""Runs what MLflow recorded of a run again, and tells what came out the same."""
