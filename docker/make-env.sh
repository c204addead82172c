#!/bin/sh
# Writes .env beside compose.yaml: a new password or key for each part, to be read by its owner only.
set -eu
cd "$(dirname "$0")"
if [ -e .env ]; then
  echo "$PWD/.env is there already, and the volumes were made with its passwords: it stays as it is" >&2
  exit 1
fi
hex() { od -An -v -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
cat >.env.new <<END
# Made by make-env.sh. Keep a copy: without FERNET_KEY Airflow's connections and variables cannot be read.
AIRFLOW_PASSWORD=$(hex 12)
AIRFLOW_FERNET_KEY=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')
AIRFLOW_JWT_SECRET=$(hex 64)
AIRFLOW_SECRET_KEY=$(hex 32)
POSTGRES_PASSWORD=$(hex 24)
AIRFLOW_DB_PASSWORD=$(hex 24)
MLFLOW_DB_PASSWORD=$(hex 24)
REDIS_PASSWORD=$(hex 24)
S3_ACCESS_KEY=$(hex 10)
S3_SECRET_KEY=$(hex 24)
RAY_TOKEN=$(hex 24)
END
mv .env.new .env
echo "wrote $PWD/.env; log in to Airflow as admin, with AIRFLOW_PASSWORD"
