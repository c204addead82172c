"""Captures the job's environment: interpreter, packages, machine, devices."""

import glob
import os
import platform
import re
import socket
import sys
from typing import Any, Dict, List


def capture(job: Dict[str, Any], work: str) -> Dict[str, Any]:
    """Returns the environment of a job. Cheap: only the names of folders are read, not packages.

    Args:
        job: The job, from ``job.json``.
        work: The job's working directory.
    """
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "packages": installed_packages(),
        "gpu_models": gpu_models(),
        "gpu_driver": gpu_driver(),
        "gpus": [name for name in os.environ.get("NVIDIA_VISIBLE_DEVICES", "").split(",") if name],
        "cwd": work,
        # Names only: values may be secrets.
        "env_keys": sorted({*os.environ, *(job.get("env") or {})}),
    }


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0


def gpu_models() -> List[str]:
    """Returns the models of the NVIDIA GPUs that the driver shows here: in a container those that it was given."""
    models = []
    for path in sorted(glob.glob("/proc/driver/nvidia/gpus/*/information")):
        try:
            with open(path) as file:
                models += [line.partition(":")[2].strip() for line in file if line.startswith("Model:")]
        except OSError:
            continue
    return sorted(models)


def gpu_driver() -> str:
    """Returns the version of NVIDIA's driver; empty where there is none."""
    try:
        with open("/proc/driver/nvidia/version") as file:
            found = re.search(r"\b[0-9]+\.[0-9.]+\b", file.readline())
    except OSError:
        return ""
    return found[0] if found else ""


def installed_packages() -> Dict[str, str]:
    """Returns the installed distributions, from the names of their metadata folders."""
    packages: Dict[str, str] = {}
    for folder in reversed(sys.path):  # the first on the path is the one that is imported
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.endswith(".dist-info"):
                distribution, _, version = name[: -len(".dist-info")].rpartition("-")
                packages[distribution.replace("_", "-").lower()] = version
    return dict(sorted(packages.items()))
