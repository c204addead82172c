"""Hosts that are reached by SSH: connections as Airflow has them, and a shell on one; nothing here knows of jobs."""
