"""Sends the job's outputs as an archive; once it is told that they came whole, the runner need not wait any more."""

import os
import subprocess
import sys
import tempfile

base, entry = sys.argv[1:]
job = os.path.join(base, "job")
with tempfile.TemporaryDirectory(dir=base) as folder:
    # Sent from beside the job's folder: sending ends with the mark that all were fetched, and that is not so yet.
    os.symlink(os.path.join(job, "outputs"), os.path.join(folder, "outputs"))
    code = subprocess.call([sys.executable, os.path.join(base, entry), "--collect", folder])
if code == 0 and sys.stdin.buffer.readline().strip() == b"complete":
    open(os.path.join(job, "collected"), "w").close()
sys.exit(code)
