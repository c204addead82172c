"""What Ray starts in the job's place: makes the job's folder, runs the runner in it, keeps its outputs.

Shipped with the job: standard library only, Python 3.9 or newer. ``start.py KEY``
"""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

HIDDEN = ".nemo_airflow"
"""Folder of what is shipped, within Ray's working directory: no module can have that name."""

SECRETS = "secrets.json"
"""The file with the values of the job's secrets."""

PIECE_OF = ".piece-"
"""Between the name of an artifact's file and the number of a piece of it."""

_LATE = 30.0
"""Most seconds to wait for Ray to have closed the log."""

_KEEP = 7 * 24 * 3600.0
"""Seconds after which outputs that were not fetched, and what a killed job left, are deleted."""


def main(key: str) -> int:
    """Runs one job; returns the exit code for Ray: the job's own."""
    cancelled = []
    signal.signal(signal.SIGTERM, lambda number, frame: cancelled.append(number))
    log = _begin_log()
    session = os.path.dirname(os.path.dirname(log)) if log else tempfile.gettempdir()
    jobs = os.path.join(session, "nemo-airflow")
    kept = os.path.join(session, "logs", "nemo-airflow", key)
    for parent in (jobs, os.path.dirname(kept)):
        os.makedirs(parent, mode=0o700, exist_ok=True)
        _delete_old(parent)
    folder = tempfile.mkdtemp(prefix=key + "-", dir=jobs)
    here = os.path.dirname(os.path.abspath(__file__))
    _lay_out(key, folder, here)
    if cancelled:
        open(os.path.join(folder, "cancel"), "w").close()
    code = _run([sys.executable, os.path.join(here, "runner", "nemo_airflow", "runner", "__main__.py"), folder])
    if _keep_outputs(os.path.join(folder, "outputs"), kept):
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _begin_log() -> str:
    """Returns the path of Ray's log of this job, emptied: from now on it is the job's stream and nothing else."""
    try:
        log = os.readlink("/proc/self/fd/1")
        # Ray's supervisor, our parent, writes a line of its own, which comes when it closes the log: on a busy machine
        # only after a while, and then amid the stream.
        deadline = time.monotonic() + _LATE
        while _has_open(os.getppid(), log) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.ftruncate(1, 0)
    except OSError:  # no file: its readers go by the places that the records tell
        return ""
    return log


def _has_open(process: int, path: str) -> bool:
    """Returns whether a process has a file open; False where that cannot be told."""
    folder = f"/proc/{process}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        try:
            if os.readlink(os.path.join(folder, name)) == path:
                return True
        except OSError:  # closed meanwhile
            continue
    return False


def _lay_out(key: str, folder: str, here: str) -> None:
    """Brings what has packages of its own, the job's files and its artifacts, and its code into its folder."""
    pieces = {}  # type: dict[str, str]
    for path in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        source = os.path.join(path, HIDDEN, "jobs", key)
        if os.path.isdir(source):
            shutil.copytree(source, folder, dirs_exist_ok=True)
            if os.path.exists(os.path.join(source, SECRETS)):
                os.unlink(os.path.join(source, SECRETS))  # Ray keeps what it has unpacked; the runner deletes its own
        inputs = os.path.join(path, HIDDEN, "inputs")
        for name in os.listdir(inputs) if os.path.isdir(inputs) else ():
            pieces[name] = os.path.join(inputs, name)
    _join(pieces, folder)
    for name in os.listdir(here):
        if name.startswith("package."):
            _link_or_copy(os.path.join(here, name), os.path.join(folder, name))


def _join(pieces: "dict[str, str]", folder: str) -> None:
    """Makes files of their pieces; one that is whole in one piece is linked."""
    files = {}  # type: dict[str, list[str]]
    for piece in sorted(pieces):
        files.setdefault(piece.rpartition(PIECE_OF)[0], []).append(pieces[piece])
    for name, paths in files.items():
        target = os.path.join(folder, name)
        if len(paths) == 1:
            _link_or_copy(paths[0], target)
            continue
        with open(target, "wb") as file:
            for path in paths:
                with open(path, "rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _run(command: "list[str]") -> int:
    runner = subprocess.Popen(command)
    # Ray signals each process of the job; whoever signals this one alone means the job too.
    signal.signal(signal.SIGTERM, lambda number, frame: runner.send_signal(number))
    code = runner.wait()
    return code if code >= 0 else 128 - code


def _keep_outputs(outputs: str, kept: str) -> bool:
    """Writes the outputs as one archive beside Ray's logs, from where its dashboard hands them out."""
    names = sorted(os.listdir(outputs)) if os.path.isdir(outputs) else []
    if not names:
        return True
    os.makedirs(kept, exist_ok=True)
    partial = os.path.join(kept, ".partial")
    try:
        with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
            # Links first: whoever takes the files one by one knows then for what else each stands.
            links = lambda member: member if member.issym() or member.isdir() else None  # noqa: E731
            others = lambda member: None if member.issym() else member  # noqa: E731
            for chosen in (links, others):
                for name in names:
                    tar.add(os.path.join(outputs, name), arcname=name, filter=chosen)
        os.replace(partial, os.path.join(kept, "outputs.tar"))
    except OSError as error:
        with open(os.path.join(kept, "error.txt"), "w") as file:
            file.write(str(error))
        return False
    return True


def _delete_old(parent: str) -> None:
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        try:
            if os.stat(path).st_mtime < time.time() - _KEEP:
                shutil.rmtree(path, ignore_errors=True)
        except FileNotFoundError:
            continue  # another job has just deleted it


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
