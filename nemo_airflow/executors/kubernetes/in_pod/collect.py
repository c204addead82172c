"""Sends the job's outputs as an archive."""

import os
import subprocess
import sys
import tempfile

base, entry = sys.argv[1:]
job = os.path.join(base, "job")
with tempfile.TemporaryDirectory(dir=base) as folder:
    # Sent from beside the job's folder: sending ends with the mark that all were kept, and that is for release.py.
    os.symlink(os.path.join(job, "outputs"), os.path.join(folder, "outputs"))
    sys.exit(subprocess.call([sys.executable, os.path.join(base, entry), "--collect", folder]))
