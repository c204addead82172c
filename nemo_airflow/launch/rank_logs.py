"""Reads what one process of a job of several has written: from its machine's own log, or by the label of its lines."""

from __future__ import annotations

import re

from nemo_airflow import blocking
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.executors.base import Executor
from nemo_airflow.jobs.service import JobService
from nemo_airflow.launch.following import read_log
from nemo_airflow.launch.records import Launched
from nemo_airflow.stream import Line, StreamReader


def read_log_of_rank(record: Launched, rank: int) -> list[str]:
    """Returns the lines that a process of a job has written so far, without their label.

    Raises:
        SettingsError: The job has no such process, or nothing tells which lines are its own.
        BackendUnavailable: The back-end is away, or the log cannot be read.
    """
    executor = record.where
    each = executor.processes_per_node
    size = executor.nodes * each
    if not 0 <= rank < size:
        raise SettingsError(f"job {record.key} has {size} process{'es' if size > 1 else ''}: --rank 0 to {size - 1}")
    own = rank
    if executor.is_group:
        machine, own = divmod(rank, each)
        lines = read_log(record) if machine == 0 else _lines_of_machine(executor, record, machine)
    else:
        lines = read_log(record)
    if each == 1 and (executor.is_group or size == 1):
        return lines
    label = executor.rank_label(own)
    if label is None:
        raise SettingsError(
            f"the launcher of job {record.key} does not say which process has written a line: 'nemo-airflow logs "
            f"{record.key}' prints those of all"
        )
    begin = re.compile(label)
    return [line[found.end() :] for line in lines if (found := begin.match(line))]


def _lines_of_machine(executor: Executor, record: Launched, machine: int) -> list[str]:
    async def read() -> bytes | None:
        return await JobService.shared(executor).driver.read_machine(record.job, machine)

    data = blocking.run(read())
    if data is None:
        raise SettingsError(
            f"the {executor.kind} back-end keeps only the log of a job's first machine: leave out --rank"
        )
    reader = StreamReader()
    return [item.text for item in (*reader.feed(data), *reader.finish()) if isinstance(item, Line)]
