#!/bin/bash
# Brings the databases, the first account and the bucket to what this version needs, at each start. Repeating it is safe.
set -euo pipefail
airflow db migrate
airflow users create --username admin --role Admin --firstname A --lastname Admin --email admin@localhost --password "$AIRFLOW_PASSWORD"
mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI"
python - <<'END'
import boto3

store = boto3.client("s3", endpoint_url="http://store:8333", region_name="us-east-1")
if "mlflow" not in [bucket["Name"] for bucket in store.list_buckets()["Buckets"]]:
    store.create_bucket(Bucket="mlflow")
END
