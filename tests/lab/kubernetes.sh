# Kubernetes: one node on the lab's dockerd, with RBAC. Debian has no servers of it, only the source they are built from.
# shellcheck shell=bash disable=SC2164
# Version 1.20.2: pods, Jobs, logs, exec, watches, events; no indexed Jobs (1.21), no native sidecars (1.28).

K8S=$LAB/k8s
K8S_BIN=$BUILDS/kubernetes
export KUBECONFIG=$K8S/kubeconfig

daemons_of_k8s() { echo etcd kube-apiserver kube-controller-manager kube-scheduler kubelet; }

up_k8s() {
  # shellcheck disable=SC2046
  if all_running $(daemons_of_k8s) && k8s_ready; then return; fi
  need etcd-server openssl conntrack iproute2
  command -v kubectl >/dev/null || need kubernetes-client
  [ -x "$K8S_BIN/kubelet" ] || build_k8s
  up_docker
  # shellcheck disable=SC2046
  any_running $(daemons_of_k8s) || clear_k8s
  mkdir -p "$K8S/pki"
  docker image inspect k8s.gcr.io/pause:3.2 >/dev/null 2>&1 ||
    tar -C "$K8S_BIN" -c pause | docker import -c 'ENTRYPOINT ["/pause"]' - k8s.gcr.io/pause:3.2 >/dev/null
  write_k8s_keys
  write_k8s_conf
  local url=http://127.0.0.1:${PORT[etcd]} peer=http://127.0.0.1:${PORT[etcd-peer]}
  start etcd etcd --data-dir "$K8S/etcd" --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"
  # Without the service-account admission: pods set automountServiceAccountToken: false, or name an account's token.
  start kube-apiserver "$K8S_BIN/kube-apiserver" --etcd-servers="$url" --service-cluster-ip-range=10.96.0.0/16 \
    --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port="${PORT[apiserver]}" --cert-dir="$K8S/pki" \
    --token-auth-file="$K8S/pki/tokens.csv" --authorization-mode=RBAC --disable-admission-plugins=ServiceAccount \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$K8S/pki/sa.pub" \
    --service-account-signing-key-file="$K8S/pki/sa.key" --allow-privileged=true \
    --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$K8S/pki/client.crt" --kubelet-client-key="$K8S/pki/client.key"
  await 300 kube-apiserver kubectl get --raw /readyz
  # There is one of each: no election every two seconds, and no wait for the end of a dead one's term.
  start kube-controller-manager "$K8S_BIN/kube-controller-manager" --kubeconfig="$KUBECONFIG" --port=0 \
    --leader-elect=false --secure-port="${PORT[controller-manager]}" \
    --service-account-private-key-file="$K8S/pki/sa.key"
  start kube-scheduler "$K8S_BIN/kube-scheduler" --kubeconfig="$KUBECONFIG" --port=0 --leader-elect=false \
    --secure-port="${PORT[scheduler]}"
  # Every kubelet keeps logs in /var/log/pods, and clears away what it does not know: each lab's sees one of its own.
  # What it mounts for pods has to be seen by dockerd all the same.
  weigh_like_processes pods
  mkdir -p "$K8S/kubelet" "$K8S/pod-logs" /var/log/pods
  mountpoint -q "$K8S/kubelet" || mount --bind "$K8S/kubelet" "$K8S/kubelet"
  mount --make-shared "$K8S/kubelet"
  local begun
  begun=$(date -u +%FT%TZ)
  # shellcheck disable=SC2016
  start kubelet unshare --mount --propagation unchanged sh -c 'mount --bind "$0" /var/log/pods && exec "$@"' \
    "$K8S/pod-logs" "$K8S_BIN/kubelet" --config="$K8S/kubelet.yaml" --kubeconfig="$KUBECONFIG" \
    --root-dir="$K8S/kubelet" --cert-dir="$K8S/pki/kubelet" --hostname-override=node1 --node-ip="$(node_address)" \
    --docker-endpoint="$DOCKER_HOST" --container-runtime=docker --network-plugin=
  await 300 kubelet kubectl get --raw /api/v1/nodes/node1/proxy/healthz
  # The node stays "Ready" for 40 s after its kubelet is gone, and may cease to be before a new one has spoken.
  # shellcheck disable=SC2016
  await 300 kubelet \
    sh -c '[ "$(kubectl get lease -n kube-node-lease node1 -o "jsonpath={.spec.renewTime}")" \> "$0" ]' "$begun"
  await 300 kubelet sh -c "kubectl get node node1 | grep -q ' Ready'"
}

k8s_ready() {
  timeout 5 kubectl get --raw /api/v1/nodes/node1/proxy/healthz >/dev/null 2>&1 &&
    timeout 5 kubectl get node node1 2>/dev/null | grep -q ' Ready'
}

# The kubelet refuses a loopback address, so the node has the machine's own; logs and exec go there.
node_address() {
  { ip -4 -o addr show scope global | grep -v -E ' (docker|nemolab|br-)'
    ip -4 -o addr show scope global
  } | awk '{sub("/.*", "", $4); print $4; exit}'
}

# The kubelet listens on an address that others may reach, so only the apiserver's certificate may command it.
write_k8s_keys() {
  local P=$K8S/pki
  [ -f "$P/sa.pub" ] || {
    openssl genrsa -out "$P/sa.key" 2048
    openssl rsa -in "$P/sa.key" -pubout -out "$P/sa.pub"
  } 2>/dev/null
  [ -f "$P/client.crt" ] || openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=apiserver \
    -keyout "$P/client.key" -out "$P/client.crt" 2>/dev/null
  echo 'lab-admin,admin,admin,system:masters' >"$P/tokens.csv"
}

write_k8s_conf() {
  cat >"$KUBECONFIG" <<C
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://127.0.0.1:${PORT[apiserver]}", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: lab-admin}}]
contexts: [{name: lab, context: {cluster: lab, user: admin, namespace: default}}]
current-context: lab
C
  # On a full disk the kubelet would remove the images, which no registry could give back, and evict the jobs.
  cat >"$K8S/kubelet.yaml" <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
port: ${PORT[kubelet]}
healthzPort: ${PORT[kubelet-health]}
cgroupDriver: cgroupfs
cgroupRoot: /pods # not beside Docker's containers, of which each weighs 512 times as much as a pod that asks for nothing
failSwapOn: false
cgroupsPerQOS: false
enforceNodeAllocatable: []
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi}
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $K8S/pki/client.crt}}
authorization: {mode: AlwaysAllow}
C
}

# The openapi definitions are not in the source package: they are generated as its own makefile would.
build_k8s() {
  say "building Kubernetes from Debian's source package, once; takes about four minutes"
  need golang-go dpkg-dev gcc libc6-dev
  # In the background, for there `set -e` holds, which it does not on the left of ||.
  build_k8s_in "$BUILDS/kubernetes.work" >"$RUN/kubernetes-build.log" 2>&1 9>&- &
  wait $! || { tail -n 20 "$RUN/kubernetes-build.log" >&2; say "the build of Kubernetes failed"; exit 1; }
}

build_k8s_in() {
  local work=$1 version
  mkdir -p "$work/lists/partial" "$work/go/src/k8s.io" "$work/bin"
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(archive) bookworm main" >"$work/sources.list"
  local apt=(apt-get -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::Lists=$work/lists")
  "${apt[@]}" update -qq
  cd "$work"
  "${apt[@]}" source --download-only -qq kubernetes
  tar xf kubernetes_*.orig.tar.gz
  version=$(basename "$(echo kubernetes-*/)" | sed 's/^kubernetes-//')
  ln -sfn "$work/kubernetes-$version" go/src/k8s.io/kubernetes
  cd go/src/k8s.io/kubernetes

  export GOPATH=$work/go GOCACHE=$work/gocache GO111MODULE=off GOFLAGS=-modcacherw
  local generated marked
  generated=pkg/generated/openapi
  marked=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg cmd plugin staging/src/k8s.io |
    grep -v -E 'code-generator|sample-apiserver|_test.go' | xargs -n1 dirname | sort -u |
    sed 's#^staging/src/#k8s.io/kubernetes/vendor/#; s#^\(pkg\|cmd\|plugin\)/#k8s.io/kubernetes/\1/#' | paste -sd,)
  go build -o "$work/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
  : >"$work/no-header"
  "$work/openapi-gen" --logtostderr -i "$marked" -p "k8s.io/kubernetes/$generated" -O zz_generated.openapi \
    -h "$work/no-header" -r "$work/violations"

  # As its makefile would: what the API server and its clients say they are, and what the programs themselves say.
  local stamp="-s -w" room vendored=k8s.io/kubernetes/vendor/k8s.io
  for room in $vendored/client-go/pkg/version $vendored/component-base/version; do
    stamp+=" -X $room.gitVersion=v$version -X $room.gitMajor=$(echo "$version" | cut -d. -f1)"
    stamp+=" -X $room.gitMinor=$(echo "$version" | cut -d. -f2)"
  done
  go build -tags providerless -o "$work/bin/" -ldflags "$stamp" \
    ./cmd/kube-apiserver ./cmd/kube-controller-manager ./cmd/kube-scheduler ./cmd/kubelet
  gcc -Os -static -DVERSION=1 -o "$work/bin/pause" build/pause/linux/pause.c
  rm -rf "$K8S_BIN"
  mv "$work/bin" "$K8S_BIN" # all or nothing: a build that was killed is done again
  cd "$BUILDS"
  chmod -R u+w "$work"
  rm -rf "$work"
}

# A cluster begins empty: the ended pods of a day of tests, a thousand and more, slow the kubelet and each list of pods.
clear_k8s() {
  unmount_k8s
  rm -rf "$K8S/etcd" "$K8S/kubelet" "$K8S/pod-logs"
  docker ps -aq --filter label=io.kubernetes.pod.uid | xargs -r docker rm -f >/dev/null
}

unmount_k8s() {
  awk -v root="$K8S/kubelet" 'index($2, root) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount
}

down_k8s() {
  stop kubelet kube-scheduler kube-controller-manager kube-apiserver etcd
  if running dockerd; then
    timeout 30 docker ps -q --filter label=io.kubernetes.pod.uid 2>/dev/null |
      timeout 30 xargs -r docker kill >/dev/null 2>&1 || true
  fi
  unmount_k8s
}
