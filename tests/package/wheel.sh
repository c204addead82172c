#!/usr/bin/env bash
# Builds the wheel, installs it into a clean environment, and does there what a newcomer does: the demo in an empty
# folder, then a new project and the commands that are printed for it. Prints what each step takes: the tutorial promises
# ten minutes for all of it, on a machine that does nothing else meanwhile, so the figure is for reading and fails nothing.
# wheel.sh PYTHON UV
set -euo pipefail
python=$1 uv=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$uv" build --quiet --wheel --out-dir "$folder/dist" "$root"
wheel=$(echo "$folder"/dist/*.whl)
mkdir "$folder/home" "$folder/empty"
cd "$folder/empty"
SECONDS=0 times=()
step() { # step NAME COMMAND...
  local begun=$SECONDS
  "${@:2}"
  times+=("$(printf '  %-8s %4s s' "$1" $((SECONDS - begun)))")
}

install() {
  "$uv" venv --quiet --python "$python" "$folder/venv"
  "$uv" pip install --quiet --python "$folder/venv/bin/python" --constraints "$root/constraints.txt" "$wheel[demo]" pytest
}
# Nothing of this environment: not its variables, and not its packages.
bare() { env -i PATH="$folder/venv/bin:/usr/bin:/bin" HOME="$folder/home" "$@"; }
project() {
  bare nemo-airflow init lines | tee "$folder/printed"
  { echo "set -ex"; sed -n 's/^  //p' "$folder/printed"; } >"$folder/commands"
  bare GIT_{AUTHOR,COMMITTER}_NAME=new GIT_{AUTHOR,COMMITTER}_EMAIL=new@localhost bash "$folder/commands"
}
step install install
pages=$(bare python -c 'import importlib.util as u, pathlib; print(pathlib.Path(u.find_spec("nemo_airflow").origin).parent / "plugin/static")')
for entry in experiments job dagRun backEnds widget licenses.txt; do
  [ -s "$pages/$entry" ] || [ -s "$pages/$entry.js" ] || { echo "the wheel has no page $entry" >&2; exit 1; }
done
step demo bare nemo-airflow demo
step project project

printf 'a newcomer took %s s:\n' $SECONDS
printf '%s\n' "${times[@]}"
