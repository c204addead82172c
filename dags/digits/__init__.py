"""The example: a classifier of handwritten digits. It runs in the job, and knows nothing of Airflow."""
