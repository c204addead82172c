"""Examines DAG files, configs and executors before anything runs: every fault at once, each with its place."""
