#!/bin/bash
# As the public image's: makes the cluster where there is none, with POSTGRES_PASSWORD, and runs /docker-entrypoint-initdb.d.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username postgres --pwfile <(echo "${POSTGRES_PASSWORD:?}") --auth-local=trust --auth-host=scram-sha-256 --encoding UTF8
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  pg_ctl --wait --options="-c listen_addresses= -c unix_socket_directories=/tmp" start
  export PGHOST=/tmp
  for script in /docker-entrypoint-initdb.d/*.sh; do "$script"; done
  unset PGHOST
  pg_ctl --wait stop
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp
