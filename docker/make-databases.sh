#!/bin/bash
# Run by PostgreSQL's image when its volume is empty: a database and a user for each of those who use it.
set -euo pipefail
make() { # make NAME PASSWORD
  psql --username postgres --set ON_ERROR_STOP=1 --set name="$1" --set password="$2" <<'SQL'
CREATE USER :"name" PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
SQL
}
make airflow "$AIRFLOW_DB_PASSWORD"
make mlflow "$MLFLOW_DB_PASSWORD"
