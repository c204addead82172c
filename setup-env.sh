#!/usr/bin/env bash
# Makes the project's environment: setup-env.sh FOLDER. Run again, it starts from what is there.
set -euo pipefail
venv=$1
say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

python=
for candidate in python3.12 python3.13 python3.11 python3; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
    python=$("$candidate" -c 'import sys; print(sys.executable)')
    break
  fi
done
[ -n "$python" ] || { say "nemo-airflow needs Python 3.11, 3.12 or 3.13 on the PATH; install one and try again"; exit 2; }

# uv, in an environment of its own where the machine has none: a system's Python may refuse packages.
uv=$(command -v uv || true)
if [ -z "$uv" ]; then
  uv=$venv/uv/bin/uv
  if [ ! -x "$uv" ]; then
    say "1/3 installing uv"
    "$python" -m venv "$venv/uv"
    "$venv/uv/bin/python" -m pip install --quiet --disable-pip-version-check uv
  fi
fi

say "2/3 making $venv with $("$python" --version)"
[ -x "$venv/bin/python" ] || "$uv" venv --quiet --allow-existing --python "$python" "$venv"
say "3/3 installing nemo-airflow with all its extras (about 240 packages)"
# Compiled once, and not by each of the many processes that start at once, or that may write no bytecode.
"$uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" --constraints constraints.txt --editable '.[all,demo]' --group dev
