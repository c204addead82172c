#!/usr/bin/env bash
# Runs a job with the wheel without an extra, in a clean environment: versions.sh lowest|newest PYTHON UV
# lowest: the lowest versions that pyproject.toml allows; newest: those of constraints.txt, with which all tests run.
set -euo pipefail
which=$1 python=$2 uv=$3
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Where pyenv has a Python, it is on the PATH only in name.
if command -v pyenv >/dev/null; then
  for bin in "$(pyenv root)"/versions/*/bin; do PATH=$PATH:$bin; done
fi
if ! "$uv" venv --quiet --python "$python" "$folder/venv" 2>"$folder/venv.log"; then
  cat "$folder/venv.log"
  echo "found no Python $python: install it, or let uv download one ('uv python install $python'), and try again" >&2
  exit 1
fi
python=$folder/venv/bin/python
versions=$root/constraints.txt
if [ "$which" = lowest ]; then
  versions=$folder/lowest.txt
  "$uv" pip compile --quiet "$root/pyproject.toml" --resolution lowest-direct --python "$python" --output-file "$versions"
fi
"$uv" build --quiet --wheel --out-dir "$folder/dist" "$root"
"$uv" pip install --quiet --python "$python" --constraints "$versions" "$folder"/dist/*.whl

# Nothing of this environment: not its variables, and not its packages.
bare() { (cd "$folder" && env -i PATH="$folder/venv/bin:/usr/bin:/bin" HOME="$folder" AIRFLOW_HOME="$folder/airflow" "$@"); }
bare python --version
direct=$(sed -n '/^dependencies = \[/,/^\]/s/^  "\([a-z-]*\).*/\1/p' "$root/pyproject.toml")
grep -E "^($(paste -sd'|' <<<"$direct"))==" "$versions"
bare python -c 'import nemo_airflow; [getattr(nemo_airflow, name) for name in nemo_airflow.__all__]'
if [ "$which" = lowest ]; then
  bare airflow providers list | grep nemo-airflow
  bare nemo-airflow --help >/dev/null
fi
bare airflow db migrate >"$folder/migrate.log" 2>&1 || { tail -30 "$folder/migrate.log"; exit 1; }
mkdir "$folder/code"
if ! bare python "$root/tests/package/versions_job.py" "$folder/code" >"$folder/job.log" 2>&1; then
  tail -60 "$folder/job.log"
  echo "the job does not run with the versions above: change the bound in pyproject.toml of what the error names" >&2
  exit 1
fi
echo "a job runs with these versions"
