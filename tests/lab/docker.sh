# Docker: dockerd from Debian on a socket of its own, and an image with Debian's Python and git, made without a registry.
# shellcheck shell=bash

export DOCKER_HOST=unix://$LAB/docker/docker.sock
IMAGE=python-lab:3.11

daemons_of_docker() { echo dockerd; }

up_docker() {
  if running dockerd && timeout 5 docker image inspect $IMAGE >/dev/null 2>&1; then return; fi
  need docker.io iptables iproute2 debootstrap
  local D=$LAB/docker network=()
  mkdir -p "$D"
  # runc cannot set the negative OOM scores that the kubelet wants where the machine lacks CAP_SYS_RESOURCE.
  cat >"$D/runc-wrap" <<'W'
#!/bin/sh
previous=
for argument in "$@"; do
  [ "$previous" = --bundle ] && sed -i 's/"oomScoreAdj":-[0-9]*/"oomScoreAdj":0/' "$argument/config.json"
  previous=$argument
done
exec runc "$@"
W
  chmod +x "$D/runc-wrap"
  # A second dockerd needs a bridge of its own, and would flush the first one's firewall rules.
  if [ -n "${NEMO_LAB_PORT_BASE:-}" ]; then
    local bridge=nemolab$NEMO_LAB_PORT_BASE
    ip link show "$bridge" >/dev/null 2>&1 || ip link add "$bridge" type bridge
    ip addr replace "10.213.$((NEMO_LAB_PORT_BASE / 16 % 256)).1/24" dev "$bridge"
    ip link set "$bridge" up
    network=(--bridge "$bridge" --iptables=false)
  fi
  # The kernel ends its containerd with it. It trusts pid files, also where the number is a zombie's or another's.
  running dockerd || rm -f "$D/pid"
  containerd_runs || rm -f "$D/exec/containerd/containerd.pid"
  start dockerd dockerd --data-root "$D/data" --exec-root "$D/exec" --pidfile "$D/pid" -H "$DOCKER_HOST" \
    --add-runtime "wrap=$D/runc-wrap" --default-runtime wrap "${network[@]}"
  await 180 dockerd docker info
  weigh_like_processes docker
  docker image inspect $IMAGE >/dev/null 2>&1 && return
  [ -f "$BUILDS/python-lab.tar" ] || build_image
  docker import - $IMAGE <"$BUILDS/python-lab.tar" >/dev/null
}

# weigh_like_processes CGROUP: all that runs in it would else weigh as much as one process of the machine, and stand still
# where the tests keep its cores busy.
weigh_like_processes() {
  if [ -e /sys/fs/cgroup/cpu/cpu.shares ]; then
    mkdir -p "/sys/fs/cgroup/cpu/$1"
    echo 4096 >"/sys/fs/cgroup/cpu/$1/cpu.shares"
  elif [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p "/sys/fs/cgroup/$1"
    [ ! -e "/sys/fs/cgroup/$1/cpu.weight" ] || echo 400 >"/sys/fs/cgroup/$1/cpu.weight"
  fi
}

build_image() {
  say "making the image $IMAGE, once; takes about a minute"
  local root=$BUILDS/rootfs
  rm -rf "$root"
  debootstrap --variant=minbase --include=python3,ca-certificates,git bookworm "$root" "$(archive)" \
    >"$RUN/debootstrap.log" 2>&1 || { tail -n 20 "$RUN/debootstrap.log" >&2; say "debootstrap failed"; exit 1; }
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  tar -C "$root" -cf "$BUILDS/python-lab.tar.new" .
  mv "$BUILDS/python-lab.tar.new" "$BUILDS/python-lab.tar"
  rm -rf "$root"
}

containerd_runs() {
  cp "$LAB/docker/exec/containerd/containerd.pid" "$RUN/containerd.pid" 2>/dev/null && running containerd
}

# The images stay for the next time; what runs in them does not.
down_docker() {
  if running dockerd; then
    kill -CONT "$(cat "$RUN/dockerd.pid")"
    timeout 30 docker ps -q 2>/dev/null | timeout 30 xargs -r docker kill >/dev/null 2>&1 || true
    # Each list of containers takes the daemon a moment longer for each that is left, and a kubelet lists each second.
    timeout 120 docker container prune -f >/dev/null 2>&1 || true
  fi
  stop dockerd
  ! containerd_runs || stop containerd
  [ -z "${NEMO_LAB_PORT_BASE:-}" ] || ip link del "nemolab$NEMO_LAB_PORT_BASE" 2>/dev/null || true
}
