#!/usr/bin/env bash
# Runs all tests that this machine can run, and says in one line each which are left out and why: tests/run.sh PYTEST
# Brings up what they need: the lab of real back-ends, a browser, a queue. In CI a part that is missing is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
pytest=$1
left_out=()

# leave_out MARKER REASON
leave_out() {
  if [ "${CI:-}" = true ]; then
    echo "in CI all tests run, but $2" >&2
    exit 1
  fi
  echo "leaving out the tests marked '$1': $2" >&2
  left_out+=("not $1")
}

# need MARKER WHAT COMMANDS PACKAGES: installs what the tests of a marker need, unless one of the commands is there.
need() {
  local marker=$1 what=$2 packages=$4 command
  for command in $3; do
    if command -v "$command" >/dev/null; then return; fi
  done
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing a $what" >&2
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # several words
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >/dev/null ||
      leave_out "$marker" "apt-get could not install $packages"
  else
    leave_out "$marker" "no $what is installed: install ${packages%% *}, or run this as root on Debian"
  fi
}

need browser browser "chromium chromium-browser google-chrome" "chromium fonts-dejavu-core"
need spooler "task spooler" tsp task-spooler

if why=$(tests/lab/lab.sh check 2>&1); then
  tests/lab/lab.sh up
else
  leave_out lab "${why#lab: }; \`make test-lab\` runs them on back-ends of your own"
fi

expression=
for term in "${left_out[@]}"; do expression=${expression:+$expression and }$term; done
# Most tests wait for a back-end, so that three groups of them share two cores well (tests/side_by_side.py). What a
# fourth starts would leave little of a slow machine to the tests: its services take a part of a core even when idle.
exec "$pytest" -n "${NEMO_TEST_WORKERS:-3}" --dist loadgroup --no-loadscope-reorder ${expression:+-m "$expression"}
