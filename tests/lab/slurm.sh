# Slurm: a controller, four nodes on this machine with one shared disk, real accounting, and the sshd one comes in by.
# shellcheck shell=bash disable=SC2016

SLURM=$LAB/slurm
SSH_USER=hpc
SSH_KEY=$SLURM/ssh/user
export SLURM_CONF=$SLURM/etc/slurm.conf # what is in /etc/slurm stays the machine's own

daemons_of_slurm() { echo mariadbd slurmdbd slurmctld slurmd.n1 slurmd.n2 slurmd.n3 slurmd.n4 sshd; }

up_slurm() {
  local node
  # shellcheck disable=SC2046
  if all_running $(daemons_of_slurm) && timeout 5 sh -c "$ALL_NODES_SERVE" 2>/dev/null; then return; fi
  need slurm-wlm slurmctld slurmd slurmdbd slurm-client munge mariadb-server openssh-server
  mkdir -p "$SLURM"/{etc,state,spool,log,maria,ssh}
  up_munge
  up_database
  write_slurm_conf
  start slurmdbd slurmdbd -D
  await 180 slurmdbd sacctmgr -n show cluster
  up_small_disk
  { # all of it is there from the second time on
    sacctmgr -i add cluster lab
    sacctmgr -i add account science
    sacctmgr -i add user "$SSH_USER" account=science
  } >/dev/null 2>&1 || true
  start slurmctld slurmctld -D
  for node in n1 n2 n3 n4; do start slurmd.$node slurmd -D -N $node; done
  up_sshd
  await 180 slurmctld scontrol ping
  (await 180 slurmctld sh -c "$RESUME; $ALL_NODES_SERVE") || { sinfo -N -l >&2; exit 1; }
}

# A controller that was killed may have drained a node, or come to think that it is down.
RESUME='left=$(sinfo -h -N -p debug -t drain,down,fail -o %N | paste -sd,);
  [ -z "$left" ] || scontrol update nodename="$left" state=resume'

ALL_NODES_SERVE='[ "$(sinfo -h -N -p debug -o %T | grep -c -E "^(idle|planned|mixed|allocated|completing)$")" = 4 ]'

# One munged serves all labs of a machine.
up_munge() {
  pgrep -x munged >/dev/null && return
  install -d -o munge -g munge -m 755 /run/munge
  runuser -u munge -- /usr/sbin/munged --force 9>&-
}

up_database() {
  local socket=$SLURM/maria.sock
  [ -f "$SLURM/maria/.made" ] || {
    rm -rf "$SLURM/maria"
    mariadb-install-db --datadir="$SLURM/maria" --user=root --auth-root-authentication-method=normal \
      >"$RUN/mariadb-install.log" 2>&1 || { tail -n 20 "$RUN/mariadb-install.log" >&2; exit 1; }
    touch "$SLURM/maria/.made"
  }
  start mariadbd mariadbd --no-defaults --datadir="$SLURM/maria" --user=root --socket="$socket" \
    --port="${PORT[mariadbd]}" --bind-address=127.0.0.1 --pid-file="$SLURM/maria.pid"
  await 180 mariadbd mariadb-admin -S "$socket" -u root ping
  mariadb -S "$socket" -u root -e "
    create database if not exists slurm_acct_db;
    create user if not exists slurm@'127.0.0.1' identified by 'slurm';
    grant all on slurm_acct_db.* to slurm@'127.0.0.1'"
}

# - One machine plays four nodes of four CPUs: config_overrides lets a slurmd claim more than there are.
# - Memory is not enforced, for want of cgroups; jobacct_gather samples it.
# - A requeued job starts when its old credential has expired: ten seconds instead of two minutes.
# - The scheduler looks every two seconds, not every minute; so does backfill, which alone starts heterogeneous jobs.
# - A node that did not answer is asked again after ten seconds, a third of SlurmdTimeout, instead of after 100.
# - A finished job leaves squeue and scontrol after MinJobAge, as on a busy site; sacct keeps it.
# - Only the accounts that a user has are taken: hpc's is `science`.
# - `urgent` preempts `debug`; jobs on `tiny` have a minute; `closed` is not for our user.
write_slurm_conf() {
  cat >"$SLURM/etc/slurmdbd.conf" <<C
AuthType=auth/munge
DbdHost=localhost
DbdPort=${PORT[slurmdbd]}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=${PORT[mariadbd]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile=$SLURM/log/slurmdbd.log
PidFile=$SLURM/dbd.pid
C
  chmod 600 "$SLURM/etc/slurmdbd.conf"
  cat >"$SLURM/etc/slurm.conf" <<C
ClusterName=lab
SlurmctldHost=localhost
SlurmctldPort=${PORT[slurmctld]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=10
StateSaveLocation=$SLURM/state
SlurmdSpoolDir=$SLURM/spool/%n
SlurmctldLogFile=$SLURM/log/slurmctld.log
SlurmdLogFile=$SLURM/log/%n.log
SlurmctldPidFile=$SLURM/ctld.pid
SlurmdPidFile=$SLURM/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=2,sched_interval=2
ReturnToService=2
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
AccountingStorageEnforce=associations
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=${PORT[slurmdbd]}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
$(for node in n1 n2 n3 n4; do
    echo "NodeName=$node NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=${PORT[$node]} CPUs=4 RealMemory=4000 State=UNKNOWN"
  done)
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=tiny Nodes=ALL MaxTime=1 State=UP PriorityTier=1
PartitionName=closed Nodes=ALL AllowGroups=root State=UP PriorityTier=1
SlurmdTimeout=30
MinJobAge=60
C
}

# A disk that is soon full.
up_small_disk() {
  mountpoint -q "$SLURM/small-disk" && return
  add_user
  mkdir -p "$SLURM/small-disk"
  mount -t tmpfs -o "size=64k,mode=700,uid=$(id -u $SSH_USER)" small "$SLURM/small-disk"
}

# By itself useradd locks the password, and without PAM sshd refuses the keys of a locked user.
add_user() { id $SSH_USER >/dev/null 2>&1 || useradd -m -s /bin/bash -p '*' $SSH_USER; }

# MaxStartups stays at its default, 10:30:100, as on a real login node.
up_sshd() {
  local authorized=/home/$SSH_USER/.ssh/authorized_keys
  add_user
  [ -f "$SLURM/ssh/host" ] || ssh-keygen -q -t ed25519 -N '' -f "$SLURM/ssh/host"
  [ -f "$SSH_KEY" ] || ssh-keygen -q -t ed25519 -N '' -f "$SSH_KEY"
  install -d -o $SSH_USER -g $SSH_USER -m 700 "$(dirname "$authorized")"
  grep -q -s -F -f "$SSH_KEY.pub" "$authorized" || cat "$SSH_KEY.pub" >>"$authorized"
  chown $SSH_USER: "$authorized" && chmod 600 "$authorized"
  mkdir -p /run/sshd
  cat >"$SLURM/ssh/sshd_config" <<C
Port ${PORT[sshd]}
ListenAddress 127.0.0.1
HostKey $SLURM/ssh/host
PidFile $SLURM/sshd.pid
PasswordAuthentication no
UsePAM no
SetEnv SLURM_CONF=$SLURM_CONF SMALL_DISK=$SLURM/small-disk
Subsystem sftp internal-sftp
C
  start sshd /usr/sbin/sshd -D -e -f "$SLURM/ssh/sshd_config"
  await 60 sshd sh -c "ssh-keyscan -p ${PORT[sshd]} 127.0.0.1 2>/dev/null | grep -q ."
}

down_slurm() {
  local node
  if running slurmctld; then # jobs would outlive the daemons and be taken up again the next time
    kill -CONT "$(cat "$RUN/slurmctld.pid")"
    timeout 10 squeue -h -o %A 2>/dev/null | timeout 10 xargs -r scancel 2>/dev/null || true
    timeout 20 sh -c 'while [ -n "$(squeue -h -t running,completing)" ]; do sleep 0.2; done' 2>/dev/null || true
  fi
  for node in n1 n2 n3 n4; do stop slurmd.$node; done
  stop slurmctld slurmdbd mariadbd sshd
  ! mountpoint -q "$SLURM/small-disk" || umount -l "$SLURM/small-disk"
}
