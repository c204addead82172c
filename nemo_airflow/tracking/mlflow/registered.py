"""Reads which versions of registered models came of runs, and which are in service; writes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model.

    Attributes:
        model: The model's name.
        version: Its number.
        run_id: The run that made it; empty if it was registered without one.
        created: When it was registered, in seconds since the epoch.
        tags: Its tags.
    """

    model: str
    version: str
    run_id: str
    created: float
    tags: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class RegisteredModel:
    """A registered model.

    Attributes:
        name: Its name.
        aliases: The version that each alias names.
        tags: Its tags.
    """

    name: str
    aliases: Mapping[str, str]
    tags: Mapping[str, str]


def runs_filter(run_ids: Iterable[str]) -> str:
    """Returns MLflow's filter for the versions that some runs have made."""
    quoted = ", ".join(f"'{run_id}'" for run_id in run_ids)
    return f"run_id IN ({quoted})"


def name_filter(name: str) -> str:
    """Returns MLflow's filter for a model."""
    quote = '"' if "'" in name else "'"
    return f"name = {quote}{name}{quote}"


def tag_filter(tag: str, part: str) -> str:
    """Returns MLflow's filter for models with a text in a tag; it may find others as well."""
    unquoted = part.replace("'", "_")  # MLflow's filter has no way to write a quote
    return f"tags.`{tag}` LIKE '%{unquoted}%'"


def version_from_json(data: Mapping[str, Any]) -> RegisteredVersion:
    """Reads the answer of a tracking server."""
    return RegisteredVersion(
        model=str(data["name"]),
        version=str(data["version"]),
        run_id=str(data.get("run_id") or ""),
        created=int(data.get("creation_timestamp") or 0) / 1000,
        tags={tag["key"]: tag.get("value", "") for tag in data.get("tags", ())},
    )


def model_from_json(data: Mapping[str, Any]) -> RegisteredModel:
    """Reads the answer of a tracking server."""
    return RegisteredModel(
        name=str(data["name"]),
        aliases={each["alias"]: str(each["version"]) for each in data.get("aliases", ())},
        tags={tag["key"]: tag.get("value", "") for tag in data.get("tags", ())},
    )
