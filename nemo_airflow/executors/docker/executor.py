"""Runs jobs as containers of a Docker daemon: what is asked for, and the call that it becomes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from nemo_airflow.exceptions import ExecutorArgumentError, MissingExtraError
from nemo_airflow.executors.base import Driver, Executor, Request
from nemo_airflow.executors.bundle import runner_entry
from nemo_airflow.executors.docker.api import Access
from nemo_airflow.executors.fields import is_deferred, known_mapping, refuse
from nemo_airflow.executors.launchers import gpus_in
from nemo_airflow.job import Job
from nemo_airflow.runner.stream_tail import KEEP

KEY = "nemo-airflow.key"
"""Label with the job's key; the labels of the job itself have the same prefix."""

PREFIX = "nemo-airflow."
TTL = "nemo-airflow.ttl"
NAME = "nemo-airflow.name"

BASE = "/nemo-airflow"
FOLDER = f"{BASE}/job"
"""The job's folder in the container."""

_PULL = ("missing", "always", "never")
_NANO = 1_000_000_000
_ALL = "-1"
"""As a number of GPUs: all that the machine has."""

_REFUSED = {
    "cmd": "it starts the job's runner; give your own command as the config",
    "entrypoint": "use entrypoint",
    "env": "use env, of the executor or of the operator",
    "labels": "use labels",
    "tty": "the job's stream could not be read",
    "image": "use container_image",
    "hostconfig.autoremove": "the job's end and outputs would go with the container; use ttl",
    "hostconfig.restartpolicy": "the daemon would run the job a second time; use the task's retries",
}
"""What must stay as it is, in lower case as the daemon compares, and what to use instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DockerExecutor(Executor):
    """Runs a job as a container, on the daemon of this machine or on another's.

    The image needs Python 3.9 or newer, and nothing of ours. The code goes in and the outputs come out
    through the daemon: nothing is mounted, no folder is shared.

    Attributes:
        container_image: The image.
        docker_conn_id: Airflow connection of type ``docker``: a registry and its login, to pull the image.
        docker_url: The daemon: ``unix://``, ``tcp://`` or ``ssh://``; ``$DOCKER_HOST``, else this machine's.
        tls_ca_cert: File with the authority that signed the daemon's certificate.
        tls_client_cert: File with the certificate to show to the daemon.
        tls_client_key: File with its key.
        tls_verify: Whether the daemon's certificate has to be valid.
        timeout: Seconds to wait for an answer of the daemon.
        pull: When to pull the image: ``missing``, ``always`` or ``never``.
        platform: Which platform's image to take, as ``os/arch``.
        python: The interpreter in the image.
        entrypoint: What to start the interpreter with, in place of the image's own entry point.
        user: User, and group, to run as: ``name``, ``uid`` or ``uid:gid``.
        group_add: Further groups of the user.
        cpus: Processors that the container may use.
        memory: Memory that it may use, in bytes or as Docker writes it: ``8g``.
        memory_reservation: Memory that it keeps where the machine runs short, likewise.
        memory_swap: Memory and swap together, likewise; -1 for any amount of swap.
        num_gpus: The same as ``gpus_per_node``: how many GPUs it sees; -1 for all.
        gpu_ids: Which GPUs it sees, by index or UUID.
        shm_size: Size of ``/dev/shm``, in bytes or as Docker writes it.
        ulimits: Limits as ``name:soft:hard`` or ``name:both``: ``memlock:-1``.
        network: Network to join: a name, ``host`` or ``none``.
        hostname: What the container calls itself; its id when None.
        dns: Addresses of name servers.
        port_bindings: Ports of the daemon's machine, by the container's as ``port`` or ``port/udp``.
        ipc_mode: IPC namespace: ``host``, ``private`` ...
        volumes: Volumes and folders of the daemon's machine, as ``source:target`` or ``source:target:mode``.
        mounts: The same and more, each a ``Mount`` of the Docker Engine API: ``{"Type": "volume", "Source": ...}``.
        tmpfs: File systems in memory, options by path.
        devices: Devices of the daemon's machine, as ``source`` or ``source:target:mode``.
        extra_hosts: Addresses of more hosts, by name.
        cap_add: Capabilities to add.
        cap_drop: Capabilities to drop.
        security_opt: Security options.
        privileged: Whether the container may do all that its machine may.
        runtime: Another runtime than the daemon's own: ``nvidia`` ...
        labels: More labels of the container.
        ttl: Seconds for which an ended container is kept; None to keep it until it is removed.
        additional_kwargs: More fields of the call that creates the container, merged over ours, as in
            "Create a container" of the Docker Engine API.
    """

    kind: ClassVar[str] = "docker"
    takes_secrets: ClassVar[bool] = True
    aliases: ClassVar[Mapping[str, str]] = {"num_gpus": "gpus_per_node"}

    container_image: str
    docker_conn_id: str | None = None
    docker_url: str | None = None
    tls_ca_cert: str | None = None
    tls_client_cert: str | None = None
    tls_client_key: str | None = None
    tls_verify: bool = True
    timeout: float = 60.0
    pull: str = "missing"
    platform: str | None = None
    python: str = "python3"
    entrypoint: Sequence[str] = ()
    user: str | None = None
    group_add: Sequence[str] = ()
    cpus: float | None = None
    memory: str | int | None = None
    memory_reservation: str | int | None = None
    memory_swap: str | int | None = None
    num_gpus: int | None = None
    gpu_ids: Sequence[str] = ()
    shm_size: str | int | None = None
    ulimits: Sequence[str] = ()
    network: str | None = None
    hostname: str | None = None
    dns: Sequence[str] = ()
    port_bindings: Mapping[str, str | int] = dataclasses.field(default_factory=dict)
    ipc_mode: str | None = None
    volumes: Sequence[str] = ()
    mounts: Sequence[Mapping[str, Any]] = ()
    tmpfs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    devices: Sequence[str] = ()
    extra_hosts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cap_add: Sequence[str] = ()
    cap_drop: Sequence[str] = ()
    security_opt: Sequence[str] = ()
    privileged: bool = False
    runtime: str | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ttl: float | None = 86400.0
    additional_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what no container could be made of, and what would undo that a job runs once and is followed."""
        super().__post_init__()
        names = {name.lower(): name for name in known_mapping(self.additional_kwargs)}
        host = {name.lower(): value for name, value in self._host_kwargs().items()}
        names |= {f"hostconfig.{name}": name for name in host}
        log = known_mapping(host.get("logconfig")).get("Type", "json-file")
        if log != "json-file" and not is_deferred(log):
            raise ExecutorArgumentError(
                f"DockerExecutor: additional_kwargs cannot have hostconfig.logconfig of type {log}: "
                "the job's stream is read from a json-file"
            )
        refuse("DockerExecutor", names, _REFUSED, "additional_kwargs")
        if not is_deferred(self.pull) and self.pull not in _PULL:
            raise ExecutorArgumentError(f"pull={self.pull!r} of DockerExecutor has to be one of {', '.join(_PULL)}")
        if self.gpus_per_node is not None and self.gpu_ids:
            raise ExecutorArgumentError("DockerExecutor takes gpus_per_node or gpu_ids, not both")

    def _host_kwargs(self) -> Mapping[str, Any]:
        given = known_mapping(self.additional_kwargs).items()
        return known_mapping(next((value for name, value in given if name.lower() == "hostconfig"), None))

    def render(self, job: Job) -> Request:
        """Returns the call that creates the container, and the files to be put into it.

        Raises:
            ExecutorArgumentError: A size, limit or volume is not written as Docker takes it.
            MissingExtraError: Docker's client is not installed.
        """
        own = self.prepare(job)
        payload = {
            "name": job.key,
            "platform": self.platform,
            "pull": self.pull,
            "grace": self.grace,
            "container": _merged(self._container(own), self.additional_kwargs),
        }
        return Request(
            key=job.key,
            kind=self.kind,
            payload=payload,
            files={"job.json": own.dumps()},
            package=job.package,
            secrets=own.secret_env,
            inputs=job.inputs,
        )

    @property
    def gpu_count(self) -> int:
        """See :attr:`Executor.gpu_count`.

        Raises:
            ExecutorArgumentError: One process for each GPU is asked for, and the number of GPUs is not known.
        """
        if str(self.gpus_per_node) == _ALL and getattr(self.launcher, "nproc_per_node", 1) is None:
            raise ExecutorArgumentError(
                "gpus_per_node=-1 does not say how many processes to start: give ntasks_per_node, or the launcher's "
                "nproc_per_node"
            )
        return len(self.gpu_ids) if self.gpus_per_node is None else gpus_in(self.gpus_per_node)

    def _container(self, job: Job) -> dict[str, Any]:
        labels = {**self.labels, **{PREFIX + name: str(text) for name, text in job.labels.items()}}
        labels |= {KEY: job.key, NAME: job.name, **({} if self.ttl is None else {TTL: f"{self.ttl:g}"})}
        container: dict[str, Any] = {
            "Image": self.container_image,
            "Entrypoint": [*self.entrypoint, self.python],
            "Cmd": [f"{BASE}/{runner_entry()}", FOLDER],
            # What is written while the daemon is away, and the container ends meanwhile, is in no log of its.
            "Env": [f"NEMO_AIRFLOW_KEY={job.key}", f"{KEEP}=1"],
            "Labels": labels,
            "User": self.user,
            "Hostname": self.hostname,
            "ExposedPorts": {port: {} for port in self._ports} or None,
            "HostConfig": self._host(),
        }
        return {name: value for name, value in container.items() if value is not None}

    def _host(self) -> dict[str, Any]:
        host = {
            # Reaps what the job leaves behind, and passes signals on.
            "Init": True,
            # The log is the job's stream: a daemon that rotates logs by default would cut it.
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1000g"}},
            "NanoCpus": None if self.cpus is None else round(self.cpus * _NANO),
            "Memory": _bytes("memory", self.memory),
            "MemoryReservation": _bytes("memory_reservation", self.memory_reservation),
            "MemorySwap": _bytes("memory_swap", self.memory_swap),
            "ShmSize": _bytes("shm_size", self.shm_size),
            "Ulimits": [_ulimit(text) for text in self.ulimits],
            "DeviceRequests": self._gpus(),
            "NetworkMode": self.network,
            "IpcMode": self.ipc_mode,
            "Binds": list(self.volumes),
            "Mounts": [dict(mount) for mount in self.mounts],
            "Dns": list(self.dns),
            "PortBindings": {port: [{"HostPort": str(own)}] for port, own in self._ports.items()},
            "GroupAdd": list(self.group_add),
            "Tmpfs": dict(self.tmpfs),
            "Devices": [_device(text) for text in self.devices],
            "ExtraHosts": [f"{name}:{address}" for name, address in self.extra_hosts.items()],
            "CapAdd": list(self.cap_add),
            "CapDrop": list(self.cap_drop),
            "SecurityOpt": list(self.security_opt),
            "Privileged": self.privileged or None,
            "Runtime": self.runtime,
        }
        return {name: value for name, value in host.items() if value is not None and value != [] and value != {}}

    @property
    def _ports(self) -> dict[str, str | int]:
        return {port if "/" in port else f"{port}/tcp": own for port, own in self.port_bindings.items()}

    def _gpus(self) -> list[dict[str, Any]]:
        if self.gpu_ids:
            return [{"DeviceIDs": list(self.gpu_ids), "Capabilities": [["gpu"]]}]
        count = -1 if str(self.gpus_per_node) == _ALL else gpus_in(self.gpus_per_node)
        return [{"Count": count, "Capabilities": [["gpu"]]}] if count else []

    @property
    def _access(self) -> Access:
        tls = (self.tls_ca_cert, self.tls_client_cert, self.tls_client_key, self.tls_verify)
        url = self.docker_url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        return Access(url, self.docker_conn_id, self.timeout, *tls)

    def connection_key(self) -> Hashable:
        """One driver for all jobs of a daemon that pull with the same login."""
        return (self.kind, self._access)

    def connect(self) -> Driver:
        """Returns a driver with the daemon."""
        from nemo_airflow.executors.docker.driver import DockerDriver

        return DockerDriver(self._access)


def _bytes(name: str, size: str | int | None) -> int | None:
    if size is None or isinstance(size, int):
        return size
    try:
        from docker.errors import DockerException
        from docker.utils import parse_bytes
    except ImportError as error:
        raise MissingExtraError("DockerExecutor", "docker") from error
    try:
        return int(parse_bytes(size))
    except DockerException as error:
        raise ExecutorArgumentError(
            f"{name}={size!r} of DockerExecutor is not a size: write bytes as a number, or a text such as 512m or 8g"
        ) from error


def _ulimit(text: str) -> dict[str, Any]:
    name, _, limits = text.partition(":")
    soft, _, hard = limits.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError as error:
        raise ExecutorArgumentError(
            f"ulimit {text!r} of DockerExecutor cannot be read: write name:soft:hard, or name:limit such as memlock:-1"
        ) from error


def _device(text: str) -> dict[str, str]:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    return {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": mode or "rwm"}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        own = merged.get(name)
        merged[name] = _merged(own, value) if isinstance(own, Mapping) and isinstance(value, Mapping) else value
    return merged
