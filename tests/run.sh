#!/usr/bin/env bash
# Runs all tests that this machine can run, and says in one line each which are left out and why: tests/run.sh PYTEST
# Brings up what they need: the lab of real back-ends, and a browser. In CI a part that is missing is a failure.
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

if ! command -v chromium chromium-browser google-chrome >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing a browser" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >/dev/null ||
      leave_out browser "apt-get could not install chromium"
  else
    leave_out browser "no browser is installed: install chromium, or run this as root on Debian"
  fi
fi

if why=$(tests/lab/lab.sh check 2>&1); then
  tests/lab/lab.sh up
else
  leave_out lab "${why#lab: }; \`make test-lab\` runs them on back-ends of your own"
fi

expression=
for term in "${left_out[@]}"; do expression=${expression:+$expression and }$term; done
# Most tests wait for a back-end, so that four groups of them share two cores well (tests/side_by_side.py).
exec "$pytest" -n "${NEMO_TEST_WORKERS:-4}" --dist loadgroup --no-loadscope-reorder ${expression:+-m "$expression"}
