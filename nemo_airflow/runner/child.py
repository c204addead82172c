"""The child's side: builds the plan, calls it, and reports the result."""

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Dict, List, Optional, Tuple

from nemo_airflow.runner import signals
from nemo_airflow.runner.channel import Channel
from nemo_airflow.runner.error_record import describe_error

EXIT_NO_LAUNCHER = 127

RESULT_LIMIT = 1 << 20
"""Bytes of JSON that a return value may have: it becomes an XCom, in Airflow's database."""


def run(folder: str, job: Dict[str, Any], output: int, events: str) -> int:
    """Runs the job in this process, just forked, and returns its exit code.

    Args:
        folder: The job's folder.
        job: The job, from ``job.json``.
        output: File descriptor for its standard output and error.
        events: Path of the socket for its reports.
    """
    _become_the_job(folder, job, output, events)
    if job.get("launch"):
        return _launch(folder, job)
    channel = Channel(events)
    try:
        return call(job, channel)
    finally:
        _flush()


def _launch(folder: str, job: Dict[str, Any]) -> int:
    """Becomes the launcher of the job's processes."""
    from nemo_airflow.runner import launch_command

    command = launch_command.command(job, folder)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - a list of arguments, and no shell
    except FileNotFoundError:
        sys.stderr.write(
            f"the launcher {command[0]!r} is not installed where the job runs: add it to the job's image or "
            "environment, or give the executor another launcher\n"
        )
        return EXIT_NO_LAUNCHER


def _become_the_job(folder: str, job: Dict[str, Any], output: int, events: str) -> None:
    os.setpgid(0, 0)
    _die_with_parent()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signals.reset_warnings()
    signal.signal(signal.SIGTERM, end_by_signal)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for fd in (null, output):
        if fd > 2:
            os.close(fd)
    work = os.path.join(folder, "work")
    os.environ.update(job.get("env") or {})
    os.environ.update(
        NEMO_AIRFLOW_EVENTS=events,
        NEMO_AIRFLOW_KEY=job["key"],
        NEMO_AIRFLOW_OUTPUT_DIR=os.path.join(folder, "outputs"),
        NEMO_AIRFLOW_INPUTS=os.path.join(folder, "inputs"),
        NEMO_AIRFLOW_CHECKPOINTS=os.path.join(folder, "checkpoints"),
        NEMO_AIRFLOW_RUN=job.get("run_id") or "",
    )
    os.chdir(work)
    set_path(work, (job.get("env") or {}).get("PYTHONPATH", ""))
    sys.argv = [job.get("name") or "job"]
    # New streams: the interpreter's own were made for the earlier descriptors 1 and 2.
    sys.stdout = open(1, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    import faulthandler

    faulthandler.enable()


def set_path(work: str, python_path: str) -> None:
    """Puts the job's code first on the path, and the runner's folder last, so that an installed package wins."""
    from importlib.machinery import PathFinder

    own = os.path.abspath(sys.path.pop(0))
    installed = PathFinder.find_spec("nemo_airflow", sys.path) is not None
    before = [work, *(path for path in python_path.split(os.pathsep) if path)]
    sys.path[:0] = before
    sys.path.append(own)
    # Processes that the job starts find the same code.
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in before]
    os.environ["PYTHONPATH"] = os.pathsep.join([*before, *inherited, *([] if installed else [own])])


def _die_with_parent() -> None:
    """Asks the kernel to end this process when the supervisor dies, on Linux."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    set_parent_death_signal = 1
    parent = os.getppid()
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the supervisor died before the request
        os._exit(1)


def end_by_signal(number: int, frame: Any) -> None:
    """Ends the job as an exception would, so that ``finally`` blocks run."""
    # Ray, Slurm and torchrun signal every process, and the supervisor passes its own signal on: one and the same
    # cancel comes twice. Not SIG_IGN, which the programs that the clean-up starts would inherit.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    raise SystemExit(128 + number)


def call(job: Dict[str, Any], channel: Any) -> int:
    """Builds the plan and calls it; reports the result on the channel, and returns the exit code."""
    try:
        target, plan = _build(job, channel)
        channel.send("config", plan=plan)
        root = plan.get("root")
        result = _run_to_its_end(target() if isinstance(root, dict) and root.get("_partial_") else target)
    except SystemExit as stop:
        return _exit_code(stop, channel)
    except BaseException as error:  # noqa: BLE001 - whatever the user's code raises is how the job ended
        return _failed(error, channel)
    try:
        text = _encode(result, channel)
    except ValueError as error:  # a job must not succeed and lose what it has made
        return _failed(error, channel)
    channel.send_json('{"type":"outcome","result":' + text + "}")
    return 0


def _run_to_its_end(result: Any) -> Any:
    """Returns the result of the config's root; awaits a coroutine.

    Raises:
        TypeError: It is a generator, which nothing would iterate over.
    """
    from collections.abc import Coroutine
    from types import AsyncGeneratorType, GeneratorType

    if isinstance(result, (GeneratorType, AsyncGeneratorType)):
        raise TypeError(
            f"the job's function returned the generator {result.__qualname__!r}, which was never iterated: "
            "give a function that iterates over it and returns a value"
        )
    if not isinstance(result, Coroutine):
        return result
    import asyncio

    return asyncio.run(result)


def _build(job: Dict[str, Any], channel: Any) -> Tuple[Any, Mapping[str, Any]]:
    """Returns the object that the plan describes, and the plan with its recipes resolved."""
    from nemo_airflow.language.names import SCRIPT, is_allowed
    from nemo_airflow.language.plan.contents import check
    from nemo_airflow.runner import plan as plans
    from nemo_airflow.runner import shipped

    allow = tuple(job.get("allow") or ())
    root = job["plan"].get("root")
    if isinstance(root, dict) and root.get("_target_") == SCRIPT:
        allow += (SCRIPT,)  # the job itself is a script, which whoever submitted it has checked
    contents = check(job["plan"])
    if contents.has_recipes or not all(is_allowed(name, allow) for name in contents.names):
        python_path = (job.get("env") or {}).get("PYTHONPATH", "").split(os.pathsep)
        allow += shipped.prefixes([os.getcwd(), *filter(None, python_path)])
    target, plan, as_text = plans.build_resolved(job["plan"], allow)
    if as_text:
        paths = ", ".join(as_text[:10])
        channel.send(
            "warning", message=f"the recorded config has text at {paths}: a plan cannot hold what the recipe has there"
        )
    return target, plan


def _exit_code(stop: SystemExit, channel: Any) -> int:
    from nemo_airflow.runner.preemption import Preempted

    if isinstance(stop, Preempted):
        channel.send("outcome", error={"type": "", "message": stop.message, "traceback": ""}, failure="preempted")
        return 0
    code = stop.code
    if code is None:
        code = 0
    if not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        channel.send("outcome", error=describe_error(stop, ""))
        return 1
    if code == 0:
        channel.send("outcome", result=None)
    return code & 0xFF


def _failed(error: BaseException, channel: Any) -> int:
    import traceback

    from nemo_airflow.language.errors import ConfigError

    if isinstance(error, ConfigError):  # the plan was refused before any of the job's code ran
        text = ""
        sys.stderr.write(f"{error}\n")
    else:
        _cut_own_frames(error)
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        sys.stderr.write(text)
    failure = "out_of_memory" if isinstance(error, MemoryError) else "user_error"
    channel.send("outcome", error=describe_error(error, text), failure=failure)
    return 1


def _cut_own_frames(error: BaseException) -> None:
    """Removes this package's frames from the start of a traceback and of its causes."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    own = tuple(os.path.join(package, room, "") for room in ("language", "runner"))
    seen: List[int] = []
    current: Optional[BaseException] = error
    while current is not None and id(current) not in seen:
        seen.append(id(current))
        frames = current.__traceback__
        while frames is not None and os.path.abspath(frames.tb_frame.f_code.co_filename).startswith(own):
            frames = frames.tb_next
        current.__traceback__ = frames
        current = current.__cause__ or current.__context__


def _encode(result: Any, channel: Any) -> str:
    """Returns the return value as JSON; null, with a warning, for one that JSON cannot hold.

    Raises:
        ValueError: JSON cannot hold it, and there are artifacts in it.
    """
    import json

    from nemo_airflow.runner.results import has_artifact, plain

    def refuse(why: str) -> str:
        if has_artifact(result):
            raise ValueError(f"the return value has artifacts, which would be lost, and cannot be kept: {why}")
        channel.send("warning", message=f"the return value is not kept: {why}")
        return "null"

    replaced: List[str] = []
    try:
        text = json.dumps(plain(result, replaced), allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        return refuse(str(error))
    if replaced:
        places = ", ".join(replaced[:10])
        channel.send("warning", message=f"JSON has no such number: null stands in the return value where {places}")
    if len(text) > RESULT_LIMIT:
        return refuse(
            f"{len(text)} bytes of JSON are more than {RESULT_LIMIT}; write a file into output_dir() and return its "
            "name"
        )
    return text


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # closed by the job
