"""Looks at experiments, goes on with one, cancels it, and runs it again."""

from __future__ import annotations

import dataclasses

from nemo_airflow.cli.follow import INTERRUPTED
from nemo_airflow.cli.output import JSON, print_json, print_table, time_text
from nemo_airflow.cli.terminal import keep_output_clean, print_line, say
from nemo_airflow.exceptions import JobFailed
from nemo_airflow.experiment import Experiment
from nemo_airflow.experiment.looking import table_of
from nemo_airflow.experiment.records import ExperimentRecords


def show_list(*, title: str, output: str) -> int:
    """Lists the experiments that were run on this machine, the newest first; returns 0."""
    records = [record for record in reversed(ExperimentRecords().list()) if title in ("", record.title)]
    if output == JSON:
        names = ("id", "title", "created_at")
        print_json(
            [
                {**{name: getattr(record, name) for name in names}, "jobs": [job.id for job in record.jobs]}
                for record in records
            ]
        )
    elif records:
        rows = [
            (record.id, time_text(record.created_at), ", ".join(job.id for job in record.jobs)) for record in records
        ]
        print_table(("ID", "RUN", "JOBS"), rows)
    else:
        say("no experiments: Experiment(...).run() in Python makes one")
    return 0


def status(*, experiment_id: str, output: str) -> int:
    """Says how each job of an experiment stands; returns 0, also where one has failed."""
    keep_output_clean()
    found = _find(experiment_id)
    lines = found.look()
    if output == JSON:
        print_json({"id": found.id, "jobs": [dataclasses.asdict(line) for line in lines]})
    else:
        print(table_of(lines, f"experiment {found.id}"))
    return 0


def logs(*, experiment_id: str, job: str, regex: str) -> int:
    """Prints what a job of an experiment has written so far; returns 0."""
    keep_output_clean()
    found = _find(experiment_id)
    found.logs(_job_of(found, job), regex or None)
    return 0


def cancel(*, experiment_id: str, job: str) -> int:
    """Cancels a job of an experiment, or all; returns 0, also where they have ended."""
    keep_output_clean()
    found = _find(experiment_id)
    found.cancel(_job_of(found, job) if job else None)
    return 0


def attach(*, experiment_id: str, quiet: bool) -> int:
    """Goes on with an experiment until all of its jobs have ended; returns 0 if all have succeeded."""
    keep_output_clean()
    return _run(_find(experiment_id), quiet=quiet)


def reset(*, experiment_id: str, quiet: bool, detach: bool) -> int:
    """Runs an experiment again from what is recorded; returns 0 if all of its jobs have succeeded."""
    keep_output_clean()
    found = _find(experiment_id).reset()
    if not detach:
        return _run(found, quiet=quiet)
    found.run(detach=True)
    print(found.id)
    return 0


def _run(experiment: Experiment, *, quiet: bool) -> int:
    try:
        experiment.run(tail_logs=not quiet)
    except JobFailed as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:  # which it has said what to do about
        return INTERRUPTED
    return 0


def _find(name: str) -> Experiment:
    titles = {record.title for record in ExperimentRecords().list()}
    find = Experiment.from_title if name in titles else Experiment.from_id
    return find(name, on_line=print_line, say=say)


def _job_of(experiment: Experiment, job: str) -> str:
    """Returns the id of a job that is given by it or by its number."""
    ids = [each.id for each in ExperimentRecords().load(experiment.id).jobs]
    return ids[int(job)] if job.isdigit() and job not in ids and int(job) < len(ids) else job
