"""What the tests of the executors need besides the back-ends."""

import os
import shutil
import subprocess
import sys

import pytest
from lab.backends import HOME

TORCH = ("torch==2.13.0", "scikit-learn", "numpy", "nvidia-resiliency-ext==0.4.1")


@pytest.fixture(scope="session")
def lab_torch(lab_slurm):
    """An interpreter with PyTorch that the cluster's user can run; NEMO_TEST_TORCH names one that is there."""
    if python := os.environ.get("NEMO_TEST_TORCH"):
        return python
    folder = HOME / "torch"
    ready = folder / ".ready"
    if not ready.exists() or ready.read_text() != " ".join(TORCH):
        shutil.rmtree(folder, ignore_errors=True)
        # The system's Python: the cluster's user may not read the folders of the one that runs the tests.
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(folder)], check=True)
        python = str(folder / "bin/python")
        subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *TORCH], check=True)
        ready.write_text(" ".join(TORCH))
    return str(folder / "bin/python")
