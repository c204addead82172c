"""Writes the job script that ``sbatch`` takes. Pure, and meant to be read by people."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors.batch.executor import seconds_allowed
from nemo_airflow.executors.fields import is_deferred, known_mapping, refuse
from nemo_airflow.executors.host import folders
from nemo_airflow.executors.launchers import RANK
from nemo_airflow.job import Job
from nemo_airflow.runner import array
from nemo_airflow.runner.ranks import ARRAY_TASK

if TYPE_CHECKING:
    from nemo_airflow.executors.slurm.executor import SlurmExecutor

RESOURCES = (
    "account", "partition", "qos", "reservation", "comment", "constraint", "prefer", "exclude", "nodelist", "gres",
    "gpu_bind", "signal", "licenses", "network", "segment", "switches", "nice", "begin", "deadline", "time_min",
    "mail_type", "mail_user", "oversubscribe", "nodes", "ntasks_per_node", "cpus_per_task",
    "cpus_per_gpu", "gpus_per_node", "gpus_per_task", "mem", "mem_per_cpu", "mem_per_gpu", "exclusive",
)  # fmt: skip
"""The parameters that are options of ``sbatch`` under the same name."""

DEPENDENCY_TYPES = ("after", "afterany", "afterburstbuffer", "aftercorr", "afternotok", "afterok")

_OF_AN_ARRAYS_OWN_JOB = ("account", "partition", "qos", "reservation", "comment", "nice")
"""The parameters of the small job that starts an array and waits for it."""

_STREAM = "the job's stream is read from its own log"
_ONCE = "it would undo that a job is submitted once"

_REFUSED = {
    "array": "use the executor's own array",
    "output": _STREAM, "error": _STREAM, "open-mode": _STREAM,
    "job-name": "use job_name_prefix", "dependency": "use dependencies and dependency_type",
    "chdir": "the job's folder is found from there", "time": "use time", "requeue": "use requeue",
    "no-requeue": "use requeue", "clusters": "use an ssh_conn_id whose login node is of that cluster",
    "parsable": _ONCE, "quiet": _ONCE, "wait": _ONCE, "test-only": _ONCE, "wrap": _ONCE, "uid": _ONCE, "gid": _ONCE,
    "help": _ONCE, "usage": _ONCE, "version": _ONCE,
    "export": "the runner needs its variables; use env", "export-file": "the runner needs its variables; use env",
}  # fmt: skip
"""Options of sbatch that must stay as they are, and what to use instead."""

_REFUSED_OF_SRUN = {
    **dict.fromkeys(("-o", "--output", "-e", "--error"), _STREAM),
    **dict.fromkeys(("--jobid", "--test-only", "-Z", "--no-allocate"), "the processes run in the job's allocation"),
}

_LONGEST_PREFIX = 100


def check_options(executor: SlurmExecutor) -> None:
    """Refuses options that undo what a job's being submitted once, and its stream, rest on.

    Raises:
        ExecutorArgumentError: One does, or is not written as an option.
    """
    for name in known_mapping(executor.additional_parameters):
        if is_deferred(name):
            continue
        if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_-]*", name):
            raise ExecutorArgumentError(
                f"SlurmExecutor: additional_parameters has {name!r}: write an option's name without dashes before it"
            )
        # sbatch takes the beginning of an option for the whole.
        full = name.replace("_", "-")
        meant = next((option for option in _REFUSED if option.startswith(full)), full)
        refuse("SlurmExecutor", [meant], _REFUSED, "additional_parameters")
    arguments = () if isinstance(executor.srun_args, str) else executor.srun_args
    given = [argument.partition("=")[0] for argument in map(str, arguments)]
    refuse("SlurmExecutor", given, _REFUSED_OF_SRUN, "srun_args")
    prefix = executor.job_name_prefix
    if is_deferred(prefix):
        return
    if len(prefix) > _LONGEST_PREFIX or prefix != prefix.lstrip() or re.search(r"[,\x00-\x1f\x7f]", prefix):
        raise ExecutorArgumentError(
            f"SlurmExecutor: job_name_prefix={prefix!r}: at most {_LONGEST_PREFIX} characters, no comma, "
            "no line break, no space at the start: squeue could not find the job by its name"
        )


def render(executor: SlurmExecutor, job: Job) -> str:
    """Returns the job script.

    Raises:
        ExecutorArgumentError: A parameter cannot stand in one, or is not one.
    """
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in _options(executor, job))]
    for number, group in enumerate(executor.heterogeneous, 1):
        if unknown := sorted(group.keys() - set(RESOURCES)):
            raise ExecutorArgumentError(f"heterogeneous has the unknown parameter {', '.join(unknown)}")
        # A name of its own: components of one name would wait for each other.
        name = f"--job-name={executor.job_name_prefix}{job.key}-group{number}"
        lines += ["#SBATCH hetjob", f"#SBATCH {name}", *(f"#SBATCH {option}" for option in _resources(group))]
    lines += [
        "",
        f"export NEMO_AIRFLOW_KEY={job.key}",
        "# After a preemption or the loss of a node Slurm starts this job again, under the same id.",
        'export NEMO_AIRFLOW_OWNER="slurm:$SLURM_JOB_ID"',
    ]
    if executor.array is not None:
        lines.append(
            f"# This job starts the array of {array.SCRIPT}, passes on what its tasks write, and waits for them."
        )
    elif job.launch:
        lines += [
            "# Where the processes of all nodes meet.",
            'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "address=$(scontrol --oneliner show node \"$head\" | grep -o 'NodeAddr=[^ ]*' | cut -d = -f 2)",
            "export MASTER_ADDR=${address:-$head}",
            "export MASTER_PORT=$((20000 + SLURM_JOB_ID % 12000))",
            'export NNODES="$SLURM_JOB_NUM_NODES"',
        ]
    return "\n".join(lines) + "\n" + folders.start_lines(executor.setup_lines, executor.python, executor.zstd_mark)


_SETUP_FAILED = 'echo "a line of setup_lines failed: $setup_failed" >&2; exit 1'


def render_array(executor: SlurmExecutor, job: Job) -> str:
    """Returns the job script of the array that the job starts: each of its tasks is one process of the job."""
    options = [
        _option("job-name", f"{array.NAME_PREFIX}{executor.job_name_prefix}{job.key}"),
        _option("array", executor.array),
        f"--output={array.LOGS}/%a.log",
        "--open-mode=append",
        *_limits(executor, job),
        *_resources(_own_resources(executor)),
        *_additional(executor),
    ]
    command = executor.step() or ("{python}", *RANK)
    values = {
        "{python}": shlex.quote(executor.python), "{runner}": f'"$PWD"/{folders.runner_path()}', "{folder}": '"$PWD"',
    }  # fmt: skip
    words = [_shell_word(part, values) for part in command]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in options),
        "",
        f'export {ARRAY_TASK}="$SLURM_ARRAY_TASK_ID"',
        *([folders.checked_setup(executor.setup_lines, _SETUP_FAILED).rstrip()] if executor.setup_lines else []),
        f"exec {' '.join(words)}",
    ]
    return "\n".join(lines) + "\n"


def _shell_word(part: str, values: Mapping[str, str]) -> str:
    """Quotes a part of a command line for the shell, with its placeholders filled by what the shell knows."""
    pieces = re.split("(" + "|".join(map(re.escape, values)) + ")", part)
    return "".join(values.get(piece) or shlex.quote(piece) for piece in pieces if piece)


def _options(executor: SlurmExecutor, job: Job) -> Iterator[str]:
    yield _option("job-name", f"{executor.job_name_prefix}{job.key}")
    # Of two jobs of one name only one runs at a time; the second then finds the work taken.
    yield _option("dependency", ",".join(["singleton", *_dependencies(executor)]))
    yield "--output=log"
    yield "--open-mode=append"
    yield from _limits(executor, job)
    if executor.array is not None:
        yield from _resources({name: getattr(executor, name) for name in _OF_AN_ARRAYS_OWN_JOB})
        return
    yield from _resources(_own_resources(executor))
    yield from _additional(executor)


def _limits(executor: SlurmExecutor, job: Job) -> Iterator[str]:
    yield "--requeue" if executor.requeue else "--no-requeue"
    if (limit := seconds_allowed(job)) is not None:
        yield f"--time={math.ceil(limit / 60)}"


def _additional(executor: SlurmExecutor) -> Iterator[str]:
    for name, value in executor.additional_parameters.items():
        yield f"--{name.replace('_', '-')}" if value is True else _option(name.replace("_", "-"), value)


def _own_resources(executor: SlurmExecutor) -> dict[str, Any]:
    values = {name: getattr(executor, name) for name in RESOURCES}
    values["ntasks_per_node"] = executor.processes_per_node
    if executor.starts_a_launcher:
        # One task a node, the launcher, with the processors of all its processes.
        values["ntasks_per_node"] = 1
        processes = getattr(executor.launcher, "nproc_per_node", None) or executor.processes_per_node
        values["cpus_per_task"] = (executor.cpus_per_task or 1) * processes
    if executor.signal is not None and not executor.step() and ":" not in executor.signal:
        # Slurm warns steps only, unless the batch shell is named: it has become the runner, and a job of one process
        # has no step.
        values["signal"] = f"B:{executor.signal}"
    return values


def _dependencies(executor: SlurmExecutor) -> Iterator[str]:
    if executor.dependency_type not in DEPENDENCY_TYPES:
        raise ExecutorArgumentError(
            f"dependency_type={executor.dependency_type!r} is not one of {', '.join(DEPENDENCY_TYPES)}"
        )
    for job_id in executor.dependencies:
        if not str(job_id).replace("_", "").replace("+", "").isdigit():
            raise ExecutorArgumentError(f"dependencies has {job_id!r}, which is not the id of a Slurm job")
        yield f"{executor.dependency_type}:{job_id}"


def _resources(values: Mapping[str, Any]) -> Iterator[str]:
    for name in RESOURCES:
        value = values.get(name)
        if value is True:
            yield f"--{name.replace('_', '-')}"
        elif value is not None and value is not False:
            yield _option(name.replace("_", "-"), value)


def _option(name: str, value: object) -> str:
    return f"--{_checked(name)}={_quoted(_checked(str(value)))}"


def _quoted(text: str) -> str:
    """Quotes a value as sbatch reads its lines of a script: not as a shell, a backslash counts everywhere."""
    if re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _checked(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise ExecutorArgumentError(f"{text!r} has a line break or control character: no option of sbatch can have one")
    return text
