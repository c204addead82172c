"""Converts a job to MLflow's parameters and tags, with the names that MLflow allows."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from nemo_airflow.connections import redact
from nemo_airflow.job import Job, JobHandle, JobStatus, Package
from nemo_airflow.runner.inputs import artifacts_in
from nemo_airflow.tracking.artifacts import tags_of_inputs
from nemo_airflow.tracking.base import ARTIFACT_INPUT, ATTEMPTS, RunInput
from nemo_airflow.tracking.forges import commit_page, repository_page

T = TypeVar("T")

KEY = "nemo_airflow.key"
"""Tag with the key of a run's job."""

PLAN_DIGEST = "nemo_airflow.plan_digest"
"""Tag with the digest of a job's config, which every run of a job has."""

MARK = "nemo_airflow.mark"
"""Tag with the number of recorded bytes of the job's stream."""

STATE = "nemo_airflow.state"
"""Tag with the job's final state; set last."""

CONFLICTS = "nemo_airflow.param_conflicts"
"""Tag with the parameters whose resolved value could not be recorded."""

NODES, GPUS = "nemo_airflow.asked_nodes", "nemo_airflow.asked_gpus"
"""Tags with the machines that a job's executor asks for, and with the GPUs of all of them."""

PARENT = "mlflow.parentRunId"

NOTE = "mlflow.note.content"
"""Tag that MLflow shows as the description of a run."""

INPUT_CONTEXT = "mlflow.data.context"
"""Tag of an input with what it is for."""

INPUTS_AT_ONCE = 1000

USER = "mlflow.user"
"""Tag that MLflow shows as the creator of a run."""

PARAMS_AT_ONCE = 100
TAGS_AT_ONCE = 100

_NAME_LENGTH = 250
_INPUT_NAME_LENGTH = 500
INPUT_DIGEST_LENGTH = 36
"""Characters of an input's digest that MLflow takes."""
_INPUT_CONTEXT_LENGTH = 500
_PARAM_LENGTH = 6000
_TAG_LENGTH = 5000
_ERROR_LENGTH = 500


_COLON_OR_REFUSED = re.compile(r":(?=[0-9a-f]+(?::|[^\w/.\- :]))|[^\w/.\- :]")
_COLON_OR_NO_PATH = re.compile(r":(?=[0-9a-f]+(?::|[^\w\- :]))|[^\w\- :]")


def mark_of(attempt: str) -> str:
    """Returns the tag with the mark of a stream: that of the run's first job, or of a later attempt, by its key."""
    return f"{MARK}.{attempt}" if attempt else MARK


def params_of(plan: Mapping[str, Any]) -> dict[str, str]:
    """Returns the plan's leaves as parameters, spelled as by MLflow's own clients.

    User code that logs one of them under the same name then logs the same value.
    """
    from nemo_airflow.config.plan import flatten

    return {
        clean_name(path): cut_text(_clean_text(redact(text)), _PARAM_LENGTH)
        for path, text in flatten(plan, as_str=True).items()
    }


def tags_of_job(job: Job) -> dict[str, str]:
    """Returns the tags of a job that are known before it is submitted."""
    from nemo_airflow.config.plan import digest
    from nemo_airflow.executors.machines import machines_asked

    labels = job.labels
    executor = job.asked.get("executor") or {}
    machines = machines_asked(executor) if executor else None
    tags = {
        KEY: job.key,
        **_source_tags(job.name, job.package),
        USER: labels.get("user", ""),
        PLAN_DIGEST: digest(job.plan),
        "nemo_airflow.image": executor.get("container_image") or "",
        **({NODES: str(machines.nodes), GPUS: str(machines.gpus)} if machines else {}),
        **{f"airflow.{name}": value for name, value in labels.items()},
    }
    tags |= tags_of_inputs(job.plan)
    tags |= tags_of_attempts(job)
    links = [f"[Task in Airflow]({url})"] if (url := labels.get("url")) else []
    if job.package and (page := commit_page(job.package.origin, job.package.commit)):
        links.append(f"[Code at {job.package.commit[:8]}]({page})")
    tags[NOTE] = note_of(job.description, links)
    if package := job.package:
        tags |= {
            "nemo_airflow.package_digest": package.digest,
            "nemo_airflow.dirty": "true" if package.dirty else "included" if package.included else "false",
            "nemo_airflow.commit": package.commit,
            "mlflow.source.git.commit": package.commit,
            "mlflow.source.git.repoURL": package.origin,
            "mlflow.source.git.branch": package.branch,
            "nemo_airflow.package_parts": json.dumps(package.parts) if package.parts else "",
            "nemo_airflow.excluded": json.dumps(package.excluded) if package.excluded else "",
        }
    return clean_tags(tags)


def tags_of_attempts(job: Job) -> dict[str, str]:
    """Returns the tag with the attempts of a job that is not the first; none for a first one."""
    return {ATTEMPTS: " ".join((job.key, *job.earlier))} if job.earlier else {}


def note_of(description: str, links: Sequence[str] = ()) -> str:
    """Returns the description of a run: a text, which is cut where it is too long, and links behind it."""
    below = " · ".join(links)
    text = cut_text(redact(description), _TAG_LENGTH - len(below) - 2)
    return "\n\n".join(filter(None, (text, below)))


def _source_tags(name: str, package: Package | None) -> dict[str, str]:
    """Returns where a job's code comes from.

    MLflow's pages show links to the repository and to the commit only for a project, whose source is an address.
    """
    page = repository_page(package.origin) if package is not None and package.commit else ""
    if not page:
        return {"mlflow.source.name": name, "mlflow.source.type": "JOB"}
    return {"mlflow.source.name": page, "mlflow.source.type": "PROJECT", "mlflow.project.entryPoint": name}


def inputs_of(plan: Mapping[str, Any]) -> list[RunInput]:
    """Returns the artifacts of a plan as inputs of its run, with the runs that made them."""
    return [
        RunInput(
            given.name or given.file,
            given.digest,
            json.dumps({"run_id": given.run_id, "path": given.output, "job": given.job, "address": given.address}),
            ARTIFACT_INPUT,
        )
        for given in artifacts_in(plan)
    ]


def clean_input(given: RunInput) -> RunInput:
    """Returns an input as MLflow allows it."""
    return RunInput(
        cut_text(_clean_text(redact(given.name)), _INPUT_NAME_LENGTH) or "_",
        _clean_text(given.digest)[:INPUT_DIGEST_LENGTH],
        _clean_text(redact(given.source)),
        _clean_text(given.source_type),
        cut_text(_clean_text(redact(given.context)), _INPUT_CONTEXT_LENGTH),
    )


def tags_of_handle(handle: JobHandle) -> dict[str, str]:
    """Returns the tags for where a job runs."""
    return clean_tags(
        {"nemo_airflow.backend": handle.kind, "nemo_airflow.job_id": handle.id, "nemo_airflow.cluster": handle.cluster}
    )


def tags_of_environment(environment: Mapping[str, Any]) -> dict[str, str]:
    """Returns the tags of a job's environment that distinguish runs in a list."""
    gpus = environment.get("gpus") or ()
    tags = {
        f"nemo_airflow.{name}": environment.get(name) for name in ("python", "host", "cpus", "image", "image_digest")
    }
    if gpus:
        names = [str(gpu.get("name", gpu)) if isinstance(gpu, Mapping) else str(gpu) for gpu in gpus]
        tags["nemo_airflow.gpus"] = ", ".join(names)
    return clean_tags({name: str(value) for name, value in tags.items() if value is not None})


def tags_of_end(status: JobStatus, error: str) -> dict[str, str]:
    """Returns the tags for how a job ended."""
    return clean_tags(
        {
            STATE: str(status.state),
            "nemo_airflow.failure": str(status.failure or ""),
            "nemo_airflow.exit_code": "" if status.exit_code is None else str(status.exit_code),
            "nemo_airflow.error": redact(error or status.reason)[:_ERROR_LENGTH],
        }
    )


def requirements_of(environment: Mapping[str, Any]) -> str:
    """Returns the packages of an environment as a requirements file."""
    packages = environment.get("packages") or {}
    return "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Returns the tags that have a value, with names and values that MLflow allows."""
    return {clean_name(name): cut_text(_clean_text(value), _TAG_LENGTH) for name, value in tags.items() if value}


def clean_name(name: str) -> str:
    """Returns a name that MLflow allows for a parameter, a metric or a tag.

    MLflow allows letters, digits and ``/_-. :``, in 250 characters, and refuses names that are not a
    plain relative path. A character that it refuses becomes its code point between colons:
    ``a+b`` is ``a:2b:b``, and a colon that would look like the first of such a pair is escaped itself,
    so that different names stay different.
    """
    clean = _COLON_OR_REFUSED.sub(_escape, name) or "_"
    if posixpath.normpath(clean) != clean or clean.startswith(("/", "..")) or clean == ".":
        clean = _COLON_OR_NO_PATH.sub(_escape, name)
    if len(clean) <= _NAME_LENGTH:
        return clean
    suffix = f"-{_digest(name)}"
    return clean[: _NAME_LENGTH - len(suffix)].rstrip("/.") + suffix


def clean_path(path: str) -> str:
    """Returns a path that MLflow allows for an artifact; MLflow refuses ``#`` and decodes ``%``."""
    return re.sub(r"[#%\\\x00-\x1f\x7f\ud800-\udfff]|(?<=^[A-Za-z]):", _escape, path)


def cut_text(text: str, length: int) -> str:
    """Returns the text, or its beginning and a digest of the whole, in at most ``length`` characters."""
    if len(text) <= length:
        return text
    suffix = f"... ({len(text)} characters, sha256 {_digest(text)})"
    return text[: length - len(suffix)] + suffix


def batches(values: Mapping[str, T], size: int) -> Iterator[dict[str, T]]:
    """Yields the mapping in parts of at most ``size`` entries."""
    items: Iterable[tuple[str, T]] = iter(values.items())
    while part := dict(islice(items, size)):
        yield part


def _clean_text(text: str) -> str:
    """Returns the text without characters that a database or JSON refuses, which become their escapes in Python."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def _escape(match: re.Match[str]) -> str:
    return f":{ord(match[0]):x}:"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
