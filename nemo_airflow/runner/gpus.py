"""Samples the job's own GPUs through ``nvidia-smi``, in the background."""

import os
import shutil
from typing import Any, Dict, List, Optional

_QUERY = ("index", "utilization.gpu", "memory.used", "memory.total", "temperature.gpu", "power.draw")
_NAMES = {
    "utilization.gpu": ("utilization_percent", 1),
    "memory.used": ("memory_used_bytes", 1 << 20),
    "memory.total": ("memory_total_bytes", 1 << 20),
    "temperature.gpu": ("temperature_celsius", 1),
    "power.draw": ("power_watts", 1),
}


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
        if len(cells) != len(_QUERY):
            continue
        for column, cell in zip(_QUERY[1:], cells[1:]):
            name, factor = _NAMES[column]
            try:
                values[f"gpu_{cells[0]}_{name}"] = float(cell) * factor
            except ValueError:
                continue  # "[N/A]": this device does not report it
    return values
