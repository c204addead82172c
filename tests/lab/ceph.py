"""Ceph's object gateway on this machine: an S3 service of another maker, which checks signatures and policies itself.

A monitor, a store in memory and the gateway, from Debian's packages, on ports of the loopback; up in ten seconds.
"""

import fcntl
import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from lab.backends import HOME, LabError

from nemo_airflow.cli.ports import hold_port, port_of

KEY, SECRET, REGION = "access-key", "hidden-secret-key", "us-east-1"
_PACKAGES = ("ceph-mon", "ceph-osd", "radosgw")
_PATIENCE = 120

_SETTINGS = """
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
osd_objectstore = memstore
memstore_device_bytes = 2147483648
ms_bind_msgr2 = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
"""


class CephStore:
    """The gateway: its address, a client, and the Airflow connection to it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    @property
    def client(self):
        """A client of the API, with the owner's credentials."""
        return boto3.client(
            "s3", endpoint_url=self.url, region_name=REGION, aws_access_key_id=KEY, aws_secret_access_key=SECRET
        )

    @property
    def connection(self) -> str:
        """The Airflow connection, as JSON."""
        extra = {"endpoint_url": self.url, "region_name": REGION}
        return json.dumps({"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra})


@contextmanager
def ceph(folder: Path) -> Iterator[CephStore]:
    """Runs the service with an empty bucket, ``bucket``; its programs are installed if they are not there.

    Args:
        folder: Where its configuration and logs go.
    """
    _install()
    with ExitStack() as stack:
        monitor, gateway = (port_of(stack.enter_context(hold_port())) for _ in range(2))
        address, fsid, config = f"v1:127.0.0.1:{monitor}", str(uuid.uuid4()), folder / "ceph.conf"
        paths = f"run_dir = {folder}\nadmin_socket = {folder}/$name.asok\nlog_file = {folder}/$name.log\npid_file =\n"
        data = f"mon_data = {folder}/mon\nosd_data = {folder}/osd\nrgw_data = {folder}\n"
        front = f"mon_host = {address}\nrgw_frontends = beast endpoint=127.0.0.1:{gateway}\n"
        config.write_text(f"[global]\nfsid = {fsid}\n{front}{paths}{data}{_SETTINGS}")
        for name in ("mon", "osd"):
            (folder / name).mkdir()

        def call(*command: str) -> str:
            done = subprocess.run(
                [command[0], "-c", str(config), *command[1:]], capture_output=True, text=True, timeout=300
            )
            if done.returncode:
                raise LabError(f"{' '.join(command[:3])}: {done.stderr.strip().splitlines()[-1:]}")
            return done.stdout

        def start(*command: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [command[0], "-c", str(config), "-f", *command[1:]],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait, 60)
            stack.callback(process.kill)  # nothing is kept: all of it is in memory
            return process

        monitors = str(folder / "monmap")
        subprocess.run(
            ["monmaptool", "--create", "--addv", "a", f"[{address}]", "--fsid", fsid, monitors],
            check=True,
            capture_output=True,
        )
        call("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
        start("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        _await("the monitor", lambda: call("ceph", "--connect-timeout", "50", "osd", "new", osd) is not None)
        call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        running = start("ceph-osd", "-i", "0")

        def is_up() -> bool:
            nonlocal running
            if running.poll() is not None:  # it asks before it knows the cluster, now and then, and ends: 'wrong fsid'
                running = start("ceph-osd", "-i", "0")
            return "1 up" in call("ceph", "osd", "stat")

        _await("a store in memory", is_up)
        start("radosgw", "-n", "client.rgw")
        keys = ["--access-key", KEY, "--secret-key", SECRET]
        call("radosgw-admin", "user", "create", "--uid", "lab", "--display-name", "lab", *keys)
        store = CephStore(gateway)
        _await("the gateway", lambda: _make_bucket(store))
        yield store


def _make_bucket(store: CephStore) -> bool:
    try:
        store.client.create_bucket(Bucket="bucket")
    except (BotoCoreError, ClientError):
        return False
    return True


def _await(what, is_there) -> None:
    """Waits until something is there; a command that fails is asked again: a young monitor refuses some of them."""
    end = time.monotonic() + _PATIENCE
    while True:
        said = ""
        try:
            if is_there():
                return
        except LabError as error:
            said = f": {error}"
        if time.monotonic() > end:
            raise LabError(f"{what} of Ceph did not come up within {_PATIENCE} s{said}")
        time.sleep(0.2)


def _install() -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    with open(HOME / "ceph.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all(map(shutil.which, ("ceph", "ceph-mon", "ceph-osd", "radosgw"))):
            return
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
        for command in (["apt-get", "update", "-qq"], [*install, *_PACKAGES]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise LabError(f"Ceph cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
