"""Measures what a job uses: processor, memory and disk of all its processes, its machine, and its GPUs."""

import os
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from nemo_airflow.runner import machine

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Process(NamedTuple):
    """A process, from ``/proc/<pid>/stat``."""

    pid: int
    state: str
    parent: int
    group: int
    cpu_seconds: float
    rss_bytes: int


def processes() -> Iterator[Process]:
    """Yields the processes of this machine; none without ``/proc``."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b") ")[2].split()
            except OSError:
                continue  # the process has ended meanwhile
            yield Process(
                int(name), fields[0].decode(), int(fields[1]), int(fields[2]),
                (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE,
            )  # fmt: skip


class Sampler:
    """Samples the child's process tree, the machine, and the job's GPUs.

    Args:
        root: Process id of the child.
        job: The job, for the GPUs that its environment names.
    """

    def __init__(self, root: int, job: Dict[str, Any]) -> None:
        self._root = root
        self._seconds: Dict[int, float] = {}
        self._then = time.monotonic()
        self._disk: Dict[int, Dict[str, int]] = {}
        self._machine = machine.Sampler()
        self._gpus = _gpus(job)

    def sample(self) -> Dict[str, float]:
        """Returns the values now: of the job's processes percent of one processor since the last sample, bytes, counts;
        of the machine and the GPUs what MLflow calls so, in its units.
        """
        tree = self._tree()
        now = time.monotonic()
        seconds = {process.pid: process.cpu_seconds for process in tree}
        used = sum(value - self._seconds.get(pid, 0.0) for pid, value in seconds.items())
        values = {
            "cpu_percent": round(100 * max(used, 0.0) / max(now - self._then, 1e-3), 1),
            "rss_bytes": sum(process.rss_bytes for process in tree),
            "processes": len(tree),
        }
        self._seconds, self._then = seconds, now
        for process in tree:
            self._disk[process.pid] = _disk_bytes(process.pid) or self._disk.get(process.pid, {})
        for name in ("read_bytes", "write_bytes"):
            values[name] = sum(counts.get(name, 0) for counts in self._disk.values())
        values.update(self._machine.sample())
        if self._gpus is not None:
            values.update(self._gpus.sample())
        return values

    def _tree(self) -> List[Process]:
        everyone = list(processes())
        wanted = {self._root}
        grown = True
        while grown:
            grown = False
            for process in everyone:
                if process.pid not in wanted and (process.parent in wanted or process.group == self._root):
                    wanted.add(process.pid)
                    grown = True
        return [process for process in everyone if process.pid in wanted]


def _disk_bytes(pid: int) -> Dict[str, int]:
    try:
        with open(f"/proc/{pid}/io") as file:
            pairs = (line.split(":") for line in file)
            return {name: int(value) for name, value in pairs if name in ("read_bytes", "write_bytes")}
    except (OSError, ValueError):
        return {}


def oom_kills() -> int:
    """Returns how many processes of this control group the kernel has killed for want of memory."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            with open(path) as file:
                return int(dict(line.split() for line in file).get("oom_kill", 0))
        except (OSError, ValueError):
            continue
    return 0


def _gpus(job: Dict[str, Any]) -> Optional[Any]:
    from nemo_airflow.runner import gpus

    return gpus.Sampler.of(job)
