"""Samples the job's own GPUs through ``nvidia-smi``, in the background, under the names of MLflow's system metrics."""

import os
import shutil
from typing import Any, Dict, List, Optional

_QUERY = (
    "index", "utilization.gpu", "memory.used", "memory.total", "power.draw", "enforced.power.limit", "temperature.gpu"
)  # fmt: skip
_MEBIBYTE = 1.048576
"""In megabytes: ``nvidia-smi`` counts in the one, MLflow in the other."""


class Sampler:
    """Runs queries in the background and returns the newest result, so that no sample waits for one.

    Args:
        program: Path of ``nvidia-smi``.
        devices: Indices or ids of the job's devices; all when empty.
    """

    def __init__(self, program: str, devices: List[str]) -> None:
        self._command = [program, "--query-gpu=" + ",".join(_QUERY), "--format=csv,noheader,nounits"]
        if devices:
            self._command.append("--id=" + ",".join(devices))
        self._process: Optional[Any] = None
        self._off = False

    @classmethod
    def of(cls, job: Dict[str, Any]) -> Optional["Sampler"]:
        """Returns a sampler for the job's GPUs, or None where the job sees none."""
        program = shutil.which("nvidia-smi")
        env = dict(os.environ, **(job.get("env") or {}))
        visible = env.get("CUDA_VISIBLE_DEVICES", env.get("NVIDIA_VISIBLE_DEVICES", "all"))
        if program is None or visible in ("", "-1", "none", "void", "NoDevFiles"):
            return None
        return cls(program, [] if visible == "all" else visible.split(","))

    def sample(self) -> Dict[str, float]:
        """Returns the values of the last query if it has ended, and begins the next."""
        values: Dict[str, float] = {}
        if self._process is not None:
            if self._process.poll() is None:
                return values
            text, self._off = self._process.stdout.read(), self._process.returncode != 0
            self._process.stdout.close()
            values = {} if self._off else parse(text)
            self._process = None
        if not self._off:
            import subprocess

            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        return values


def parse(text: str) -> Dict[str, float]:
    """Returns the values in the output of ``nvidia-smi``, by ``gpu_<index>_<name>``."""
    values: Dict[str, float] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(_QUERY):
            measured = _measured(dict(zip(_QUERY[1:], cells[1:])))
            values.update({f"gpu_{cells[0]}_{name}": round(value, 1) for name, value in measured.items()})
    return values


def _measured(cells: Dict[str, str]) -> Dict[str, float]:
    given: Dict[str, float] = {}
    for name, cell in cells.items():
        try:
            given[name] = float(cell)
        except ValueError:
            continue  # "[N/A]": this device does not report it
    values: Dict[str, float] = {}
    if "utilization.gpu" in given:
        values["utilization_percentage"] = given["utilization.gpu"]
    if "memory.used" in given:
        values["memory_usage_megabytes"] = given["memory.used"] * _MEBIBYTE
        if given.get("memory.total"):
            values["memory_usage_percentage"] = 100 * given["memory.used"] / given["memory.total"]
    if "power.draw" in given:
        values["power_usage_watts"] = given["power.draw"]
        if given.get("enforced.power.limit"):
            values["power_usage_percentage"] = 100 * given["power.draw"] / given["enforced.power.limit"]
    if "temperature.gpu" in given:
        values["temperature_celsius"] = given["temperature.gpu"]
    return values
