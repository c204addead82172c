"""Examines a batch scheduler: each thing that a job will need of it is asked for, and nothing is submitted."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from nemo_airflow.executors.batch.probe import Probe
from nemo_airflow.executors.finding import Finding, bad, doubtful, good
from nemo_airflow.ssh.shell import Shell

if TYPE_CHECKING:
    from nemo_airflow.ssh.local import LocalShell


async def try_probe(shell: Shell | LocalShell, probe: Probe, script: str) -> Finding:
    """Runs a probe; returns what it found.

    Args:
        shell: The host of the scheduler.
        probe: The probe.
        script: The start script of a job as the executor makes it.

    Raises:
        BackendUnavailable: The host cannot be reached.
    """
    lines = [probe.command]
    if probe.gets_script:
        lines = ["script=$(mktemp) || exit 20", f"printf %s {shlex.quote(script)} >$script", *lines]
        lines = [*lines[:-1], f"( {probe.command} ); code=$?", "rm -f $script; exit $code"]
    answer = await shell.run("\n".join(lines))
    if answer.code:
        return (bad if probe.needed else doubtful)(probe.name, answer.reason, probe.fix)
    said = [line.strip() for line in (answer.text or answer.err).splitlines() if line.strip()]
    return good(probe.name, said[-1] if said else "")
