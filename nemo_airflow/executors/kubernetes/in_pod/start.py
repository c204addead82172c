"""Unpacks the job's bundle, waits for what comes later, and becomes the runner."""

import glob
import io
import os
import signal
import sys
import tarfile
import time

bundle, base, entry, package, master, limit = sys.argv[1:]


def wait_for(path: str, what: str) -> None:
    """Waits until a file is there and not empty; gives up after the limit."""
    give_up = time.monotonic() + float(limit)
    while not (os.path.exists(path) and os.path.getsize(path)):
        if os.path.exists(os.path.join(base, "job", "cancel")):
            return  # the runner says so
        if time.monotonic() > give_up:
            message = f"nemo-airflow: {what} did not come within {limit} s: no worker or triggerer brought it"
            with open("/dev/termination-log", "w") as file:
                file.write(message)
            sys.exit(message)
        time.sleep(0.05)


# The first process of a container ignores signals for which it has no handler.
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
pieces = []
for name in sorted(glob.glob(bundle + "*")):
    with open(name, "rb") as piece:
        pieces.append(piece.read())
with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
    archive.extraction_filter = lambda member, path: member
    archive.extractall(base)  # noqa: S202 - it is ours
if package:
    wait_for(os.path.join(base, package), "the job's package")
if master:
    wait_for(master, "the address of the job's first pod")
    with open(master) as file:
        os.environ["MASTER_ADDR"] = file.read().strip()
if not os.access(os.environ.get("TMPDIR", "/tmp"), os.W_OK):  # noqa: S108 - asked about, not used
    # The image's own files cannot be written: there is one folder that can.
    os.environ["TMPDIR"] = os.path.join(base, "tmp")
    os.makedirs(os.environ["TMPDIR"], exist_ok=True)
os.execv(  # noqa: S606
    sys.executable, [sys.executable, os.path.join(base, entry), os.path.join(base, "job")]
)
