#!/usr/bin/env bash
# A lab of real back-ends for the tests, on one Debian 12 machine: root, no systemd needed, no image registry.
#   docker   dockerd from Debian, with an image python-lab:3.11 made by debootstrap
#   slurm    slurmctld, four slurmd (n1 to n4), slurmdbd on MariaDB, reached over an sshd of its own
#   gridengine  a master and the hosts n1 to n4, used from the same sshd; see gridengine.sh
#   postgres PostgreSQL, for tracking servers of MLflow
#   k8s      kube-apiserver, controller-manager, scheduler and kubelet, built once from Debian's source package
# shellcheck disable=SC2034 # the parts use what is set here
set -euo pipefail
usage="usage: $0 up|down|status [docker] [slurm] [gridengine] [postgres] [k8s]  or  $0 env|check
  NEMO_LAB            where its state is (/tmp/nemo-lab)
  NEMO_LAB_PORT_BASE  the first of twenty-one ports in a row for a second lab beside the usual one
  NEMO_LAB_BUILDS     where the image and Kubernetes are kept once built (builds/ in NEMO_LAB); labs can share it"

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB=$(realpath -m "${NEMO_LAB:-/tmp/nemo-lab}")
BUILDS=$(realpath -m "${NEMO_LAB_BUILDS:-$LAB/builds}")
RUN=$LAB/run
export DEBIAN_FRONTEND=noninteractive
unset TMPDIR # the daemons outlive whoever brings them up
for part in common docker slurm postgres kubernetes; do
  # shellcheck disable=SC1090,SC2034
  . "$HERE/$part.sh"
done

# A script of its own, since its daemons live in namespaces of theirs.
gridengine() { NEMO_LAB=$LAB NEMO_LAB_GRIDENGINE_PORT=${PORT[gridengine]} "$HERE/gridengine.sh" "$1" 9>&-; }
up_gridengine() { gridengine up; }
down_gridengine() { gridengine down; }

command=${1:-}
shift || true
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(docker slurm gridengine postgres k8s)
for part in "${parts[@]}"; do
  case $part in docker | slurm | gridengine | postgres | k8s) ;; *) echo "$usage" >&2; exit 2 ;; esac
done

case $command in
  up)
    check
    take_lock
    forget_last_boot
    for part in "${parts[@]}"; do
      begun=$SECONDS
      "up_$part"
      say "$part is up in $((SECONDS - begun)) s"
    done
    ;;
  down)
    [ -d "$RUN" ] || exit 0
    take_lock
    for part in k8s postgres gridengine slurm docker; do
      case " ${parts[*]} " in *" $part "*) "down_$part"; say "$part is down" ;; esac
    done
    ;;
  status)
    for part in "${parts[@]}"; do
      if [ "$part" = gridengine ]; then gridengine status | sed 's/^/gridengine /'; continue; fi
      for daemon in $("daemons_of_$part"); do
        if running "$daemon"; then echo "$part $daemon $(cat "$RUN/$daemon.pid")"; else echo "$part $daemon -"; fi
      done
    done
    ;;
  env)
    echo "export NEMO_LAB=$LAB DOCKER_HOST=$DOCKER_HOST KUBECONFIG=$KUBECONFIG SLURM_CONF=$SLURM_CONF" \
      "NEMO_TEST_SSH=ssh://$SSH_USER@127.0.0.1:${PORT[sshd]} NEMO_TEST_SSH_KEY=$SSH_KEY" \
      "NEMO_TEST_POSTGRES=$POSTGRES_URI"
    ;;
  check) check ;;
  *) echo "$usage" >&2; exit 2 ;;
esac
