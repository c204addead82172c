#!/usr/bin/env bash
# Gives the lab's Docker what the files in docker/ ask for by the names of public images; what is there stays.
# build.sh UV, with the lab's DOCKER_HOST
set -euo pipefail
uv=$1
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
airflow=$(sed -n 's/^apache-airflow==//p' "$root/constraints.txt")

# Debian's client, whose BuildKit needs no plugin.
docker() { PATH=/usr/bin:$PATH DOCKER_BUILDKIT=1 command docker "$@"; }

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$here"/{Dockerfile,postgres-entrypoint.sh} "$root/constraints.txt" "$uv" /etc/ssl/certs/ca-certificates.crt "$context"

build() { # build TARGET NAME ARGUMENTS...
  docker image inspect "$2" >/dev/null 2>&1 && return
  echo "building a stand-in for $2" >&2
  docker build --quiet --network host --target "$1" --tag "$2" "${@:3}" "$context" >/dev/null
}
named() { sed -n "s#^ *image: \($1:.*\)#\1#p" "$root/docker/compose.yaml"; }
build python python:3.11-slim-bookworm
build airflow "apache/airflow:slim-$airflow-python3.11" --build-arg AIRFLOW="$airflow"
build postgres "$(named postgres)"
build redis "$(named redis)"
store=$(named chrislusf/seaweedfs)
build seaweedfs "$store" --build-arg SEAWEEDFS="${store##*:}"
