# What the parts of the lab have in common: messages, ports, packages, daemons and waiting.
# shellcheck shell=bash disable=SC1091,SC2016,SC2034

say() { echo "lab: $*" >&2; }

# Says why the lab cannot be made here, if so.
check() {
  local ID='' VERSION_ID=''
  [ -r /etc/os-release ] && . /etc/os-release
  [ "$(id -u)" = 0 ] && [ "$ID $VERSION_ID" = "debian 12" ] && return
  say "the lab of real back-ends is made on Debian 12 as root; this is ${ID:-unknown} ${VERSION_ID:-} as $(id -un)"
  return 1
}

# The ports one would look for; with a base, twenty-one in a row from there, so that a second lab fits beside.
declare -A PORT=([sshd]=2222 [slurmctld]=6817 [slurmdbd]=6819 [mariadbd]=23306 [n1]=17001 [n2]=17002 [n3]=17003
  [n4]=17004 [apiserver]=16443 [etcd]=23790 [etcd-peer]=23800 [kubelet]=10250 [kubelet-health]=10248
  [controller-manager]=10257 [scheduler]=10259 [postgres]=25432 [gridengine]=6444)
if [ -n "${NEMO_LAB_PORT_BASE:-}" ]; then
  next=$NEMO_LAB_PORT_BASE
  for name in sshd slurmctld slurmdbd mariadbd n1 n2 n3 n4 apiserver etcd etcd-peer kubelet kubelet-health \
    controller-manager scheduler postgres gridengine; do PORT[$name]=$((next++)); done # Grid Engine takes five
fi

# One at a time: two tests may ask for the lab at the same moment. Daemons must not inherit the lock: see start.
take_lock() {
  mkdir -p "$RUN" "$BUILDS"
  exec 9>"$LAB/lock"
  flock -w 900 9 || { say "another lab.sh holds $LAB/lock for 15 minutes"; exit 1; }
}

# Pid files, sockets and mounts do not outlive a boot; a daemon that finds them would trust them.
forget_last_boot() {
  local boot; boot=$(cat /proc/sys/kernel/random/boot_id)
  [ "$(cat "$RUN/boot" 2>/dev/null)" = "$boot" ] && return
  rm -rf "$RUN"/*.pid "$LAB/docker/exec" "$LAB/docker/pid"
  echo "$boot" >"$RUN/boot"
}

# need PACKAGE...: installs those that are missing. Their own daemons must not start beside the lab's.
need() {
  local package missing=() policy=/usr/sbin/policy-rc.d ours=
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  [ -e $policy ] || { ours=1; printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; }
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$RUN/apt.log" 2>&1 ||
    { tail -n 20 "$RUN/apt.log" >&2; say "apt could not install ${missing[*]}"; [ -z "$ours" ] || rm $policy; exit 1; }
  [ -z "$ours" ] || rm $policy
}

# The package archive that this machine is set up for.
archive() {
  { awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources
    awk '/^deb / {for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) {print $i; exit}}' /etc/apt/sources.list
  } 2>/dev/null | head -n 1
}

# Whether the daemon of that pid file runs. Its name is compared as well: after a kill -9 the number may be another's.
# A name is that of the program, with what tells it from others of it after a dot: slurmd.n1.
running() {
  local pid name state program=${1%%.*}
  pid=$(cat "$RUN/$1.pid" 2>/dev/null) && read -r _ name state _ 2>/dev/null <"/proc/$pid/stat" || return 1
  [ "$name" = "(${program:0:15})" ] && [ "$state" != Z ]
}

all_running() {
  local daemon
  for daemon in "$@"; do running "$daemon" || return 1; done
}

any_running() {
  local daemon
  for daemon in "$@"; do ! running "$daemon" || return 0; done
  return 1
}

# start NAME COMMAND...: starts a daemon that outlives this shell, unless it runs; a paused one goes on.
start() {
  local name=$1; shift
  if running "$name"; then kill -CONT "$(cat "$RUN/$name.pid")"; return; fi
  rm -f "$RUN/$name.pid"
  # It writes its pid itself, so that none runs unrecorded if this shell is killed right here.
  # No core dumps; and not in a folder that may be deleted, of which each step of a job would complain.
  setsid sh -c 'cd /; ulimit -c 0; echo $$ >"$0.pid" && exec "$@"' "$RUN/$name" "$@" >>"$RUN/$name.log" 2>&1 </dev/null 9>&- &
}

# stop NAME...: ends daemons by their pid files, at last by force.
stop() {
  local name pid end
  for name in "$@"; do
    if running "$name"; then
      pid=$(cat "$RUN/$name.pid")
      kill -TERM "$pid"; kill -CONT "$pid"
      end=$((SECONDS + 15))
      while running "$name" && [ $SECONDS -lt $end ]; do sleep 0.1; done
      ! running "$name" || { say "$name did not end in 15 s: killed"; kill -KILL "$pid"; }
    fi
    rm -f "$RUN/$name.pid"
  done
}

# await SECONDS DAEMON COMMAND...: polls until the command succeeds. At the limit, or when the daemon has ended, shows
# the end of its log and fails.
await() {
  local limit=$1 daemon=$2 end=$((SECONDS + $1)); shift 2
  until timeout 10 "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ] || ended "$daemon"; then
      say "$daemon $(if ended "$daemon"; then echo "ended at its start"; else echo "does not serve after $limit s"; fi)," \
        "waiting for: $*"
      say "the end of $RUN/$daemon.log:"
      tail -n 20 "$RUN/$daemon.log" >&2
      exit 1
    fi
    sleep 0.2
  done
}

ended() { [ -f "$RUN/$1.pid" ] && [ ! -d "/proc/$(cat "$RUN/$1.pid")" ]; }
