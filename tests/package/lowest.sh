#!/usr/bin/env bash
# Runs a job with the lowest versions that pyproject.toml allows: the wheel without an extra, in a clean environment.
# lowest.sh PYTHON UV
set -euo pipefail
python=$1 uv=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$uv" pip compile --quiet "$root/pyproject.toml" --resolution lowest-direct --python "$python" --output-file "$folder/lowest.txt"
"$uv" build --quiet --wheel --out-dir "$folder/dist" "$root"
"$uv" venv --quiet --python "$python" "$folder/venv"
"$uv" pip install --quiet --python "$folder/venv/bin/python" --constraints "$folder/lowest.txt" "$folder"/dist/*.whl

# Nothing of this environment: not its variables, and not its packages.
bare() { (cd "$folder" && env -i PATH="$folder/venv/bin:/usr/bin:/bin" HOME="$folder" AIRFLOW_HOME="$folder/airflow" "$@"); }
direct=$(sed -n '/^dependencies = \[/,/^\]/s/^  "\([a-z-]*\).*/\1/p' "$root/pyproject.toml")
grep -E "^($(paste -sd'|' <<<"$direct"))==" "$folder/lowest.txt"
bare python -c 'import nemo_airflow; [getattr(nemo_airflow, name) for name in nemo_airflow.__all__]'
bare airflow providers list | grep nemo-airflow
bare nemo-airflow --help >/dev/null
bare airflow db migrate >"$folder/migrate.log" 2>&1 || { tail -30 "$folder/migrate.log"; exit 1; }
mkdir "$folder/code"
if ! bare python "$root/tests/package/lowest_job.py" "$folder/code" >"$folder/job.log" 2>&1; then
  tail -60 "$folder/job.log"
  echo "the job does not run with the versions above: raise the bound in pyproject.toml of what the error names" >&2
  exit 1
fi
echo "a job runs with these versions"
