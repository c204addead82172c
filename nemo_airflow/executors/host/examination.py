"""Examines a host on which jobs have folders: whether they can be written, with what Python, at what time."""

from __future__ import annotations

import shlex
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from nemo_airflow.executors.finding import Finding, bad, doubtful, good
from nemo_airflow.ssh.shell import Shell

if TYPE_CHECKING:
    from nemo_airflow.ssh.local import LocalShell

_OLDEST = (3, 9)
_CLOCKS_DIFFER = 10.0
"""Seconds. More would put the points of a job, and its end, at the wrong time."""

_LEAST_ROOM = 1 << 20
"""KiB that are free at least."""

_CONTAINERS = ("apptainer", "singularity", "enroot", "docker", "podman")

_TOOLS = ("tar", "awk", "find", "sha256sum")


async def examine_host(shell: Shell | LocalShell, root: str, python: str, setup_lines: str | None) -> list[Finding]:
    """Returns what a host has for jobs.

    Args:
        shell: The host.
        root: Folder of the jobs; it need not exist, and is not made.
        python: The interpreter of jobs.
        setup_lines: Shell lines before it.

    Raises:
        BackendUnavailable: The host cannot be reached.
    """
    before = time.time()
    answer = await shell.run(_script(root, python, setup_lines))
    now = (before + time.time()) / 2
    said = dict(line.partition("=")[::2] for line in answer.text.splitlines() if "=" in line)
    findings = [good("reached", f"as {said.get('user', '?')} on {said.get('host', '?')}")]
    if isinstance(shell, Shell):
        findings.append(await _noise(shell))
    findings += [_python(said, python), *_folder(said, root), _clock(said, now), *_tools(said)]
    if said.get("gpus", "0") != "0":
        findings.append(good("GPUs", f"{said['gpus']} here"))
    if containers := said.get("containers", "").split():
        findings.append(good("containers", ", ".join(containers)))
    return findings


def _script(root: str, python: str, setup_lines: str | None) -> str:
    home = root.removeprefix("~/") if root.startswith("~/") else root
    version = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    run = shlex.quote(f"{setup_lines or ''}\n{python} -c {shlex.quote(version)}")
    return f"""
echo "user=$(id -un)"; echo "host=$(uname -n)"; echo "clock=$(date +%s)"
shell=sh; if command -v bash >/dev/null; then shell=bash; fi
printf 'python='; $shell -c {run} 2>&1 | tail -n 1
folder={shlex.quote(home)}
while [ ! -e "$folder" ]; do folder=$(dirname "$folder"); done
echo "nearest=$folder"
if [ -d "$folder" ] && [ -w "$folder" ] && [ -x "$folder" ]; then echo writable=yes; fi
echo "room=$(df -Pk "$folder" 2>/dev/null | awk 'NR == 2 {{print $4}}')"
echo "quota=$(quota -q 2>/dev/null | tr '\\n' ' ')"
missing=; for tool in {" ".join(_TOOLS)}; do command -v $tool >/dev/null || missing="$missing $tool"; done
echo "missing=$missing"
found=; for each in {" ".join(_CONTAINERS)}; do command -v $each >/dev/null && found="$found $each"; done
echo "containers=$found"
echo "gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')"
"""


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _noise(shell: Shell) -> Finding:
    answer = await shell.send("true", _nothing())
    if printed := len(answer.out):
        return doubtful(
            "start-up files",
            f"they print {printed} bytes at each login, which is left out here but breaks scp, sftp and rsync",
            "in ~/.bashrc there: [[ $- == *i* ]] || return, before what prints",
        )
    return good("start-up files", "silent")


def _python(said: dict[str, str], python: str) -> Finding:
    version = said.get("python", "")
    try:
        number = tuple(map(int, version.split(".")))
    except ValueError:
        fix = "give python=... of the executor another interpreter, or setup_lines=... that make it known"
        return bad("python", f"{python} does not start: {version or 'no answer'}", fix)
    if number < _OLDEST:
        fix = "give python=... of the executor Python 3.9 or newer, or load one in setup_lines=..."
        return bad("python", f"{python} is Python {version}", fix)
    return good("python", version)


def _folder(said: dict[str, str], root: str) -> list[Finding]:
    if said.get("writable") != "yes":
        fix = "give root=... of the executor a folder that this user may write"
        return [bad("folder of jobs", f"{root}: {said.get('nearest', root)} cannot be written", fix)]
    if quota := said.get("quota", "").strip():
        return [doubtful("folder of jobs", f"the quota is used up: {quota}", "delete files there, or ask for more")]
    if said.get("room", "").isdecimal() and int(said["room"]) < _LEAST_ROOM:
        fix = "free some, or give root=... a folder on another disk; 'nemo-airflow reap EXECUTOR --folders' helps"
        return [doubtful("folder of jobs", f"{root}: {int(said['room']) >> 10} MiB are free", fix)]
    room = f", {int(said['room']) >> 20} GiB free" if said.get("room", "").isdecimal() else ""
    return [good("folder of jobs", f"{root}{room}")]


def _clock(said: dict[str, str], now: float) -> Finding:
    try:
        ahead = float(said["clock"]) - now
    except (KeyError, ValueError):
        return doubtful("clock", "it does not tell the time")
    if abs(ahead) > _CLOCKS_DIFFER:
        way = "ahead of" if ahead > 0 else "behind"
        return doubtful("clock", f"{abs(ahead):.0f} s {way} this machine's", "have both keep time with NTP")
    return good("clock", "as here")


def _tools(said: dict[str, str]) -> list[Finding]:
    missing = said.get("missing", "").split()
    return [bad("programs", f"{', '.join(missing)} not found", "install them there")] if missing else []
