# PostgreSQL for a tracking server of MLflow: one server on 127.0.0.1, with a database "mlflow" of the user "mlflow".
# shellcheck shell=bash disable=SC2154

POSTGRES=$LAB/postgres
POSTGRES_URI=postgresql://mlflow@127.0.0.1:${PORT[postgres]}/mlflow

daemons_of_postgres() { echo postgres; }

up_postgres() {
  need postgresql
  local programs
  programs=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  # It refuses to run as root.
  as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups env -i LANG=C.UTF-8 PATH="$PATH" "$@"; }
  [ -f "$POSTGRES/.made" ] || {
    rm -rf "$POSTGRES"
    install -d -m 700 -o postgres -g postgres "$POSTGRES"
    as_postgres "$programs/initdb" -D "$POSTGRES/data" -U mlflow --auth=trust --encoding=UTF8 --no-sync \
      >"$RUN/postgres-init.log" 2>&1 || { tail -n 20 "$RUN/postgres-init.log" >&2; exit 1; }
    touch "$POSTGRES/.made"
  }
  # What a kill -9 has left: a pid that may be another process's by now.
  running postgres || rm -f "$POSTGRES/data/postmaster.pid"
  # Nothing in it outlives the tests: it need not survive the machine.
  start postgres setpriv --reuid=postgres --regid=postgres --init-groups "$programs/postgres" -D "$POSTGRES/data" \
    -p "${PORT[postgres]}" -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off
  await 180 postgres "$programs/pg_isready" -q -h 127.0.0.1 -p "${PORT[postgres]}"
  "$programs/psql" -q -h 127.0.0.1 -p "${PORT[postgres]}" -U mlflow -d postgres -c 'create database mlflow' \
    >/dev/null 2>&1 || true # it is there from the second time on
}

down_postgres() { stop postgres; }
