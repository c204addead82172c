"""What goes wrong on a cluster, on demand: daemons that die or hang, connections that break; and who was asked what.

For the lab that is there to be broken (fixture ``lab_to_break``), not for the one that other tests share.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from lab.backends import Lab, part_of

_RPC = re.compile(r"^\t(\w+)\s+\(\s*\d+\)\s+count:(\d+)", re.MULTILINE)


def kill(lab: Lab, daemon: str) -> None:
    """Ends a daemon at once (SIGKILL) and returns when it is gone.

    What becomes of jobs differs. They do not notice a killed kube-apiserver or kubelet. slurmctld finds those again
    whose state it had saved (``await_saved``); any other it forgets, and its node kills it soon after the restart.
    Logins outlive a killed sshd. Containers outlive a killed dockerd, but not its next start, which kills them.
    """
    process = lab.process(daemon)
    process.kill()
    _await_end(process)


def restart(lab: Lab, daemon: str) -> None:
    """Starts a killed daemon again and returns when it serves; no other is touched."""
    lab.up(part_of(daemon))


@contextmanager
def killed(lab: Lab, daemon: str) -> Iterator[None]:
    """Keeps a daemon dead for the length of the block."""
    kill(lab, daemon)
    try:
        yield
    finally:
        restart(lab, daemon)


@contextmanager
def paused(lab: Lab, *daemons: str) -> Iterator[None]:
    """Stops daemons for the length of the block (SIGSTOP): they take connections, and say nothing."""
    processes = [lab.process(daemon) for daemon in daemons]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def logins(lab: Lab) -> list[psutil.Process]:
    """Returns sshd's process for each connection it has now."""
    return [child for child in lab.process("sshd").children() if _is_sshd(child)]


def cut_logins(lab: Lab) -> int:
    """Ends every SSH connection at the server (SIGKILL), and returns how many; sshd itself lives on."""
    cut = logins(lab)
    for login in cut:
        # The user's sshd under it holds the connection as well, and each may end of itself when the other does.
        parts = [login]
        with suppress(psutil.NoSuchProcess):
            parts = [*login.children(), login]
        for process in parts:
            with suppress(psutil.NoSuchProcess):
                if process.name() == "sshd":
                    process.kill()
    for login in cut:
        _await_end(login)
    return len(cut)


def _is_sshd(process: psutil.Process) -> bool:
    """Returns whether a process is still there, and sshd's."""
    try:
        return process.name() == "sshd"
    except psutil.NoSuchProcess:
        return False


def await_saved(lab: Lab, job: str) -> None:
    """Waits until slurmctld has saved a job as it is now; it does so up to five seconds after a change."""
    state = Path(lab.env["SLURM_CONF"]).parents[1] / "state/job_state"
    before = state.stat().st_mtime_ns if state.exists() else 0
    # A change of its own makes sure that there will be a newer file.
    lab.command("scontrol", "update", f"jobid={job}", f"admincomment={time.monotonic_ns()}")
    for _ in range(300):
        if state.exists() and state.stat().st_mtime_ns > before:
            return
        time.sleep(0.1)
    raise TimeoutError(f"slurmctld did not save its jobs to {state} within 30 s")


def rpc_counts(lab: Lab) -> dict[str, int]:
    """Returns how often slurmctld was asked what, since its start or ``reset_rpc_counts``, as ``sdiag`` has it."""
    return {name: int(count) for name, count in _RPC.findall(lab.command("sdiag"))}


def reset_rpc_counts(lab: Lab) -> None:
    """Makes slurmctld count from nothing."""
    lab.command("sdiag", "--reset")


def kubeconfig_through(kubeconfig: Path, port: int, into: Path) -> Path:
    """Writes a copy of a kubeconfig whose server is behind that port of 127.0.0.1, and returns its path."""
    behind, found = re.subn(r'(?<=server: ")https://[^"]+', f"https://127.0.0.1:{port}", kubeconfig.read_text())
    assert found == 1, f"no server in {kubeconfig}"
    into.write_text(behind)
    return into


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended; it may stay as a zombie for a while where nothing hurries to reap it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE or not process.is_running()
    except psutil.NoSuchProcess:
        return True


def _await_end(process: psutil.Process) -> None:
    for _ in range(200):
        if gone(process):
            return
        time.sleep(0.05)
    raise TimeoutError(f"{process} is still there 10 s after it was killed")
