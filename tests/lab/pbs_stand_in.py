#!/usr/bin/python3
"""Stands in for PBS, which cannot be installed here: qsub, qselect, qstat and qdel on processes of one user.

It takes the options and gives the answers of OpenPBS's man pages that the driver rests on, and starts each job at once.
That PBS itself behaves so is not shown by it. Called under the name of one of its commands.
"""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

STATE = Path.home() / "pbs"
FINISHED, UNKNOWN = 35, 153


def qsub(script):
    text = Path(script).read_text()
    options = re.findall(r"^#PBS (-\w+) (\S+)", text, re.MULTILINE)
    if bad := [value for name, value in options if name == "-q" and value != "workq"]:
        sys.exit(f"qsub: Unknown queue {bad[0]}")
    STATE.mkdir(exist_ok=True)
    number = 1
    while True:
        folder = STATE / f"{number}.stand-in"
        try:
            folder.mkdir()
            break
        except FileExistsError:
            number += 1
    (folder / "script").write_text(text)
    (folder / "name").write_text(dict(options)["-N"])
    run = '{ bash "$0/script"; echo $? >"$0/code.new"; mv "$0/code.new" "$0/code"; } >"$0/output" 2>&1'
    env = {**os.environ, "PBS_JOBID": folder.name, "PBS_O_WORKDIR": os.getcwd(), "PBS_ENVIRONMENT": "PBS_BATCH"}
    process = subprocess.Popen(
        ["bash", "-c", run, str(folder)], cwd=Path.home(), env=env, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    (folder / "pid").write_text(str(process.pid))
    print(folder.name)


def qselect(*arguments):
    options = dict(itertools.pairwise(arguments))
    for folder in sorted(STATE.glob("*.stand-in"), key=lambda path: int(path.name.partition(".")[0])):
        named = options.get("-N") in (None, read(folder, "name"))
        if named and ("-x" in arguments or not has_ended(folder)):
            print(folder.name)


def qstat(*arguments):
    jobs, code = {}, 0
    for job_id in [each for each in arguments if each.endswith(".stand-in")]:
        folder = STATE / job_id
        if not folder.is_dir():
            code = UNKNOWN
        elif has_ended(folder) and "-x" not in arguments:
            code = FINISHED
        else:
            jobs[job_id] = show(folder)
    print(json.dumps({"timestamp": int(time.time()), "pbs_version": "stand-in", "Jobs": jobs}, indent=4))
    sys.exit(code)


def qdel(*ids):
    for job_id in ids:
        folder = STATE / job_id
        if folder.is_dir() and not has_ended(folder):
            (folder / "deleted").touch()
            end(int(read(folder, "pid")))


def end(session):
    """Kills all processes of a job, as a host of PBS does after its delay."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
            environment = stat.with_name("environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = os.fsencode(f"PBS_JOBID={job_of(session)}") in environment
        if int(fields[3]) == session or ours:
            os.kill(int(stat.parent.name), signal.SIGKILL)


def job_of(session):
    return next(path.parent.name for path in STATE.glob("*/pid") if path.read_text() == str(session))


def show(folder):
    job = {"Job_Name": read(folder, "name"), "job_state": "R", "substate": 42, "run_count": 1}
    if has_ended(folder):
        code = read(folder, "code").strip()
        job |= {"job_state": "F", "substate": 91 if (folder / "deleted").exists() else 92}
        job["Exit_status"] = int(code) if code else 256 + signal.SIGKILL
    return job


def has_ended(folder):
    pid = read(folder, "pid")
    return (folder / "code").exists() or not pid or not Path(f"/proc/{pid}").exists()


def read(folder, name):
    try:
        return (folder / name).read_text()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    {"qsub": qsub, "qselect": qselect, "qstat": qstat, "qdel": qdel}[Path(sys.argv[0]).name](*sys.argv[1:])
