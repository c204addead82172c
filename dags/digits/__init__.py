"""The example: a classifier of handwritten digits. It runs in the job, and does not use Airflow."""
