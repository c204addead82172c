"""Finds what differs between two states of the code, for ``nemo-airflow diff``."""
