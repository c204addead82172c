"""Measures the machine that a job runs on, under the names and in the units of MLflow's system metrics."""

import os
from typing import Dict, List, Tuple

_MEGABYTE = 1e6


class Sampler:
    """Samples processors, memory, the root disk and the network of this machine; what it cannot read is left out.

    In a container these are mostly the host's, as for MLflow's own sampler.
    """

    def __init__(self) -> None:
        self._busy, self._all = _processor_times()
        self._received, self._sent = _network_bytes()

    def sample(self) -> Dict[str, float]:
        """Returns the values now: percentages from 0 to 100, megabytes of 10**6 bytes; the network since the start."""
        return {**self._processors(), **_memory(), **_disk(), **self._network()}

    def _processors(self) -> Dict[str, float]:
        busy, everything = _processor_times()
        passed, used = everything - self._all, busy - self._busy
        self._busy, self._all = busy, everything
        return {"cpu_utilization_percentage": round(100.0 * used / passed, 1)} if passed > 0 else {}

    def _network(self) -> Dict[str, float]:
        received, sent = _network_bytes()
        if not received and not sent:
            return {}
        return {
            "network_receive_megabytes": (received - self._received) / _MEGABYTE,
            "network_transmit_megabytes": (sent - self._sent) / _MEGABYTE,
        }


def _lines(path: str) -> List[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []


def _processor_times() -> Tuple[int, int]:
    """Returns the ticks in which the processors were busy, and all of them; see proc(5), ``/proc/stat``."""
    for line in _lines("/proc/stat"):
        if line.startswith("cpu "):
            ticks = [int(cell) for cell in line.split()[1:9]]  # those of guests are in user and nice already
            return sum(ticks) - sum(ticks[3:5]), sum(ticks)
    return 0, 0


def _memory() -> Dict[str, float]:
    kilobytes = {}
    for line in _lines("/proc/meminfo"):
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            kilobytes[name] = int(rest.split()[0])
    if len(kilobytes) < 2 or not kilobytes["MemTotal"]:
        return {}
    used = kilobytes["MemTotal"] - kilobytes["MemAvailable"]
    return {
        "system_memory_usage_megabytes": round(used * 1024 / _MEGABYTE, 1),
        "system_memory_usage_percentage": round(100.0 * used / kilobytes["MemTotal"], 1),
    }


def _disk() -> Dict[str, float]:
    try:
        disk = os.statvfs(os.sep)
    except OSError:
        return {}
    used, free = (disk.f_blocks - disk.f_bfree) * disk.f_frsize, disk.f_bavail * disk.f_frsize
    if not used + free:
        return {}
    return {
        "disk_usage_megabytes": round(used / _MEGABYTE, 1),
        "disk_available_megabytes": round(free / _MEGABYTE, 1),
        "disk_usage_percentage": round(100.0 * used / (used + free), 1),
    }


def _network_bytes() -> Tuple[int, int]:
    """Returns the bytes that all interfaces have received and sent since the machine's start."""
    received = sent = 0
    for line in _lines("/proc/net/dev")[2:]:
        cells = line.partition(":")[2].split()
        received += int(cells[0])
        sent += int(cells[8])
    return received, sent
