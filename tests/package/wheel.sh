#!/usr/bin/env bash
# Builds the wheel, installs it into a clean environment, and does there what a newcomer does: the demo in an empty
# folder, then a new project and the commands that are printed for it.
# wheel.sh PYTHON UV
set -euo pipefail
python=$1 uv=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$uv" build --quiet --wheel --out-dir "$folder/dist" "$root"
"$uv" venv --quiet --python "$python" "$folder/venv"
wheel=$(echo "$folder"/dist/*.whl)
"$uv" pip install --quiet --python "$folder/venv/bin/python" --constraints "$root/constraints.txt" "$wheel[demo]" pytest

# Nothing of this environment: not its variables, and not its packages.
mkdir "$folder/home" "$folder/empty"
bare() { env -i PATH="$folder/venv/bin:/usr/bin:/bin" HOME="$folder/home" "$@"; }
cd "$folder/empty"
bare nemo-airflow demo

bare nemo-airflow init lines | tee "$folder/printed"
{ echo "set -ex"; sed -n 's/^  //p' "$folder/printed"; } >"$folder/commands"
bare GIT_{AUTHOR,COMMITTER}_NAME=new GIT_{AUTHOR,COMMITTER}_EMAIL=new@localhost bash "$folder/commands"
