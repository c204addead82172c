"""What a recorded run was made of, as texts by name: to be put side by side. Pure: a record in, texts out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nemo_airflow.config.plan import flatten
from nemo_airflow.reproduction.comparing import inputs_of, own_variables
from nemo_airflow.tracking.mlflow.recorded import ENVIRONMENT, INCLUDED, JOB, PATCH, PLAN, RecordedRun

_MACHINE = ("python", "platform", "host", "cpus", "memory_bytes", "gpus", "image", "image_digest")
_SHORT = 12
"""Characters of a digest that are shown."""


def config_of(run: RecordedRun) -> dict[str, str]:
    """Returns the config by path, as the job resolved it."""
    return flatten(run.plan)


def code_of(run: RecordedRun) -> dict[str, str]:
    """Returns what the code was: its commit, what was not committed, and what was shipped."""
    facts = {
        "commit": run.commit[:_SHORT],
        "branch": run.tags.get("mlflow.source.git.branch", ""),
        "repository": run.tags.get("mlflow.source.git.repoURL", ""),
        "uncommitted changes": ("yes" if run.dirty else "no") if run.commit else "",
        "patch": hashlib.sha256(run.patch.encode("utf-8", "surrogateescape")).hexdigest()[:_SHORT] if run.patch else "",
        "package": run.package_digest[:_SHORT],
        "not shipped": ", ".join(run.excluded),
    }
    parts = {f"part {number}": _text(part) for number, part in enumerate(run.parts, 1)}
    included = {f"not in git: {path}": digest[:_SHORT] for path, digest in sorted(run.included.items())}
    return {name: value for name, value in facts.items() if value} | parts | included


def environment_of(run: RecordedRun) -> dict[str, str]:
    """Returns the machine and the installed packages; empty where the job has not told them."""
    packages = run.environment.get("packages") or {}
    return machine_of(run.environment) | {name: str(version) for name, version in sorted(packages.items())}


def machine_of(environment: Mapping[str, Any]) -> dict[str, str]:
    """Returns what an environment tells of its machine."""
    return {name: json.dumps(environment[name]).strip('"') for name in _MACHINE if environment.get(name)}


def inputs_by_name(run: RecordedRun) -> dict[str, str]:
    """Returns the digests of what the job was given."""
    return {name: digest or "no digest" for name, digest in sorted(inputs_of(run).items())}


def asked_of(run: RecordedRun) -> dict[str, str]:
    """Returns what was asked for besides config and code: back-end, resources, variables; by path."""
    asked = {name: value for name, value in run.asked.items() if name not in ("name", "package")}
    if asked:
        asked["env"] = own_variables(run.asked)
    return dict(_leaves(asked, ""))


SECTIONS: Mapping[str, tuple[Callable[[RecordedRun], dict[str, str]], frozenset[str]]] = {
    "config": (config_of, frozenset({PLAN})),
    "code": (code_of, frozenset({PATCH, INCLUDED})),
    "environment": (environment_of, frozenset({ENVIRONMENT})),
    "inputs": (inputs_by_name, frozenset()),
    "asked": (asked_of, frozenset({JOB})),
}
"""What can be compared: how it is made of a run, and which of its files are needed for that."""


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, f"{path}.{key}" if path else str(key))
    elif value not in (None, "", []):
        yield path, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
