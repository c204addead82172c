"""What a tracker has to be told of a job, as data: it waits in a queue, or on disk for another process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow.job import Job, JobHandle, JobStatus
from nemo_airflow.tracking import reserved
from nemo_airflow.tracking.base import RunInput, RunRef, Tracker
from nemo_airflow.tracking.reuse import RESULT

Texts = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a tracker.

    Attributes:
        verb: Which one; see the functions below.
        arguments: Its arguments, plain JSON types.
    """

    verb: str
    arguments: Mapping[str, Any]

    @property
    def what(self) -> str:
        """What it records, for people."""
        return str(self.arguments.get("what") or _VERBS[self.verb][0])

    def make(self, tracker: Tracker, ref: RunRef) -> Texts | None:
        """Calls the tracker; returns documents to store as files, if there are any.

        Raises:
            TrackingError: The tracker refuses, or cannot be reached.
        """
        return _VERBS[self.verb][1](tracker, ref, self.arguments)

    def to_json(self) -> dict[str, Any]:
        """Returns the call as plain JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Call:
        """The inverse of ``to_json``."""
        return cls(data["verb"], data["arguments"])


def started(handle: JobHandle, script: str) -> Call:
    """Returns the call that records where the job runs."""
    return Call("started", {"handle": handle.to_json(), "script": script})


def config(plan: Mapping[str, Any]) -> Call:
    """Returns the call that records the resolved config."""
    return Call("config", {"plan": plan})


def environment(values: Mapping[str, Any]) -> Call:
    """Returns the call that records the job's environment."""
    return Call("environment", {"values": values})


def tags(values: Mapping[str, Any]) -> Call:
    """Returns the call that sets tags."""
    return Call("tags", {"values": values})


def inputs(found: Sequence[RunInput]) -> Call:
    """Returns the call that records data sets that the job reads."""
    return Call("inputs", {"inputs": [dataclasses.asdict(each) for each in found]})


def model(name: str, folder: str) -> Call:
    """Returns the call that records a model that the job has made."""
    return Call("model", {"name": name, "folder": folder, "what": f"model {name!r}"})


def outputs_kept() -> Call:
    """Returns the call for the end of the job's outputs, which are all kept."""
    return Call("outputs_kept", {})


def merge(earlier: Call, later: Call) -> Call | None:
    """Returns one call for two of the same verb, of which a job may make thousands; None where they stay apart."""
    if earlier.verb != later.verb:
        return None
    if later.verb == "tags":
        return tags({**earlier.arguments["values"], **later.arguments["values"]})
    if later.verb == "inputs":
        return Call("inputs", {"inputs": [*earlier.arguments["inputs"], *later.arguments["inputs"]]})
    return None


def documents(texts: Texts, of: Call) -> Call:
    """Returns the call that stores the documents of another one."""
    return Call("documents", {"texts": dict(texts), "what": f"the document of {of.what.removeprefix('the ')}"})


def result(value: Any) -> Call:
    """Returns the call that stores what the job's function returned."""
    return Call("documents", {"texts": {RESULT: json.dumps(value)}, "what": "the result"})


def log(job: Job, path: Path) -> Call:
    """Returns the call that stores the copy of the job's log."""
    return Call("files", {"files": {reserved.log_of(job): str(path)}, "what": "the log"})


def files(paths: Mapping[str, Path]) -> Call:
    """Returns the call that stores files, by their path in the run."""
    return Call("files", {"files": {name: str(path) for name, path in paths.items()}})


def ended(status: JobStatus, error: str, at: float) -> Call:
    """Returns the call that records how and when the job ended."""
    return Call("ended", {"status": status.to_json(), "error": error, "at": at})


def close_parent(*, succeeded: bool, at: float) -> Call:
    """Returns the call that ends the parent run, if this is the last job so far."""
    return Call("close_parent", {"succeeded": succeeded, "at": at})


_Verb = tuple[str, Callable[[Tracker, RunRef, Mapping[str, Any]], "Texts | None"]]

_VERBS: Mapping[str, _Verb] = {
    "started": (
        "where the job runs",
        lambda tracker, ref, given: tracker.started(ref, JobHandle.from_json(given["handle"]), given["script"]),
    ),
    "config": ("the config", lambda tracker, ref, given: tracker.config(ref, given["plan"])),
    "environment": ("the environment", lambda tracker, ref, given: tracker.environment(ref, given["values"])),
    "inputs": (
        "inputs",
        lambda tracker, ref, given: tracker.inputs(ref, [RunInput(**each) for each in given["inputs"]]),
    ),
    "model": ("a model", lambda tracker, ref, given: tracker.model(ref, given["name"], given["folder"])),
    "outputs_kept": ("the models of the run", lambda tracker, ref, _: tracker.outputs_kept(ref)),
    "tags": ("tags", lambda tracker, ref, given: tracker.tag(ref, given["values"])),
    "documents": ("documents", lambda tracker, ref, given: tracker.documents(ref, given["texts"])),
    "files": (
        "files",
        lambda tracker, ref, given: tracker.artifacts(ref, {path: Path(at) for path, at in given["files"].items()}),
    ),
    "ended": (
        "the job's end",
        lambda tracker, ref, given: tracker.ended(
            ref, JobStatus.from_json(given["status"]), error=given["error"], at=given["at"]
        ),
    ),
    "close_parent": (
        "the end of the parent run",
        lambda tracker, ref, given: tracker.close_parent(ref, succeeded=given["succeeded"], at=given["at"]),
    ),
}
"""What each verb records, and how it is called."""
