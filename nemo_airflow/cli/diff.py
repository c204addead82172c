"""Compares two configs or runs; shows a config as a tree, a flowchart or Python code, and who set its values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_airflow.cli.output import JSON, print_json
from nemo_airflow.cli.plan import compose_config
from nemo_airflow.comparison.code_parts import CodePart, part_changes, recorded_parts
from nemo_airflow.config import plan as plans
from nemo_airflow.config.changes.value_files import as_file, read_values
from nemo_airflow.config.plan.versions import ConfigVersions
from nemo_airflow.config.texts.yaml_text import plan_from_yaml
from nemo_airflow.config.views.differences import diff
from nemo_airflow.config.views.outline import is_plan
from nemo_airflow.config.views.picture import to_mermaid, to_tree
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.registered import RECIPES, registered
from nemo_airflow.reproduction.report import changes_of

if TYPE_CHECKING:
    from nemo_airflow.tracking.mlflow.recorded import RecordedRun

_DIGEST = re.compile(r"[0-9a-f]{4,64}")
_RUN = "run:"


@dataclasses.dataclass(frozen=True)
class _Side:
    """One side of a comparison; fields that it does not have are None or empty."""

    plan: Mapping[str, Any] | None = None
    code: Sequence[CodePart] | None = None
    """The parts of the code; None for the current code."""
    has_code: bool = False
    included: Mapping[str, str] | None = None
    excluded: Sequence[str] | None = None
    """Files that git does not track and a run's package had, by path; None for the current code."""
    folder: Path | None = None
    """The folder of the code."""
    unknown_code: str = ""
    """Why the code is not known."""
    package_digest: str = ""
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    is_run: bool = False


@dataclasses.dataclass(frozen=True)
class Where:
    """Where configs are looked up.

    Attributes:
        allow: What files with layers may import.
        tracking_uri: Address of MLflow, for runs; a tracker's default when None.
        conn_id: An Airflow connection with MLflow's address and login.
        repositories: Folders in the repositories of the runs' code, besides the current folder.
    """

    allow: Sequence[str] = ()
    tracking_uri: str | None = None
    conn_id: str | None = None
    repositories: Sequence[str] = ()


def run(old: str, new: str, *, output: str, where: Where) -> int:
    """Prints the differences; returns 0 if there are none, else 1, like ``diff``. Metrics are shown and not counted.

    Args:
        old: A config, a folder or a run, as :func:`load_plan` knows them; when empty, the newest run that succeeded
            before the other.
        new: The same for the other side; a run where ``old`` is empty.
        output: ``text``, ``json``; or ``tree`` or ``mermaid`` for the whole new config with its changes alone.
        where: Where they are looked up.

    Raises:
        ConfigError: One of them is no config.
        TrackingError: A run cannot be read, or none has succeeded before.
    """
    if not old:
        old, new = _last_good(new, where)
    before, after = (_side(name, where) for name in (old, new))
    found = diff(before.plan, after.plan) if before.plan is not None and after.plan is not None else None
    if output in ("tree", "mermaid"):
        if found is None:
            raise ConfigError(f"-o {output} shows configs, but a folder has none: compare two configs or runs")
        print(found.to_tree() if output == "tree" else found.to_mermaid(), end="")
        return 1 if found else 0
    sections: dict[str, Sequence[str] | None] = {"config": found.to_text().splitlines() if found is not None else None}
    if before.is_run or after.is_run:
        sections["code"] = _code(before, after, where)
        sections["environment"] = _environment(before.environment, after.environment)
    differ = any(sections.values())
    both = before.is_run and after.is_run
    if both and (before.inputs or after.inputs):
        sections["inputs"] = changes_of(before.inputs, after.inputs)
        differ = differ or bool(sections["inputs"])
    if both and (before.metrics or after.metrics):
        sections["metrics"] = changes_of(_metrics(before.metrics), _metrics(after.metrics))
    if output == JSON:
        print_json({**sections, "config": found.to_json() if found is not None else None})
    elif len(sections) > 1:
        print("".join(_listed(sections)), end="")
    else:
        print(found.to_text() if found is not None else "", end="")
    return 1 if differ else 0


def draw(config: str, overrides: Sequence[str], output: str, where: Where) -> int:
    """Prints a config as a ``tree``, or as a flowchart for ``mermaid``."""
    plan = load_plan(config, overrides, where)
    print(to_tree(plan) if output == "tree" else to_mermaid(plan), end="")
    return 0


def write_code(config: str, overrides: Sequence[str], where: Where, *, by_name: bool) -> int:
    """Prints a config as Python code."""
    from nemo_airflow.config.views.python_code import to_python

    print(to_python(load_plan(config, overrides, where), by_name=by_name), end="")
    return 0


def show_history(
    name: str, overrides: Sequence[str], path: str | None, *, layers: Sequence[str], allow: Sequence[str], output: str
) -> int:
    """Prints who set each value of a config, and where; see :func:`nemo_airflow.cli.plan.compose_config`."""
    from nemo_airflow.config.views.provenance import history, history_text

    config = compose_config(name, overrides, layers, allow)
    if output == JSON:
        print_json([dataclasses.asdict(setting) for setting in history(config, path)])
    else:
        print(history_text(config, path), end="")
    return 0


def load_plan(name: str, overrides: Sequence[str] = (), where: Where = Where()) -> Mapping[str, Any]:
    """Returns the plan of ``pkg.mod:name``, a YAML or JSON file, the digest of a config that was run, or a run.

    Only code, and the targets of a file with layers or overrides, are imported, as far as ``where`` allows. With
    an allow-list, every file becomes a config with the defaults of its targets.

    Raises:
        ConfigError: The config does not exist, or overrides are given for a config that was run.
        TrackingError: The run cannot be read.
    """
    is_run = name.startswith(_RUN)
    if not is_run and (_is_code(name) or _is_composed(name, overrides, where.allow)):
        return plans.to_plan(compose_config(name, overrides, allow=where.allow), check=False)
    if overrides:
        raise ConfigError(f"{name} is a config that was run and cannot be changed: overrides are for code and files")
    if is_run:
        return _recorded(name, where).plan
    if name.endswith((".yaml", ".yml")):
        return plan_from_yaml(Path(name))
    if name.endswith(".json"):
        try:
            return plans.loads(Path(name).read_bytes())
        except OSError as error:
            raise ConfigError(f"{name} cannot be read: {error.strerror}") from error
    if _DIGEST.fullmatch(name):
        return ConfigVersions().load(name)
    raise ConfigError(
        f"{name!r} is not a config: give pkg.mod:name, a .yaml or .json file, the digest of one, or run:ID of MLflow"
    )


def _is_code(name: str) -> bool:
    is_recipe = name.partition("(")[0] in registered(RECIPES)
    return is_recipe or (":" in name and as_file(name) is None and not Path(name).exists())


def _is_composed(name: str, overrides: Sequence[str], allow: Sequence[str]) -> bool:
    """Returns whether a name is a file to compose into a config, rather than to read as a plan."""
    file = as_file(name)
    if file is None or not Path(file.path).is_file():
        return False
    values = read_values(file.path, file.key)
    if not isinstance(values, Mapping) or is_plan(values):
        return False
    return bool(overrides or allow or file.key) or not {"_base_", "overrides"}.isdisjoint(values)


def _side(name: str, where: Where) -> _Side:
    if name.startswith(_RUN):
        found = _recorded(name, where)
        unknown = "" if found.commit else f"{name} has no commit"
        if found.dirty and not found.patch:
            unknown = f"{name} ran uncommitted changes that held a secret or could not be recorded"
        return _Side(
            found.plan,
            recorded_parts(found.commit, found.patch, found.parts),
            has_code=True,
            included=found.included,
            excluded=found.excluded,
            unknown_code=unknown,
            package_digest=found.package_digest,
            environment=found.environment,
            inputs=found.inputs,
            metrics=found.metrics,
            is_run=True,
        )
    if Path(name).is_dir():
        return _Side(has_code=True, folder=Path(name))
    return _Side(load_plan(name, where=where), has_code=_is_code(name))


def _code(old: _Side, new: _Side, where: Where) -> Sequence[str] | None:
    """Returns the files that differ, or why they are not known; None where there is no code to compare."""
    if old.package_digest and old.package_digest == new.package_digest:
        return []  # equal content, whatever its source
    if unknown := old.unknown_code or new.unknown_code:
        return [unknown]
    if not old.has_code or not new.has_code:
        return None
    named = [side.folder for side in (old, new) if side.folder is not None]
    folders = [*(named or [Path.cwd()]), *map(Path, where.repositories)]
    lines = [*part_changes(old.code, new.code, folders), *_included(old.included, new.included)]
    if old.excluded is not None and new.excluded is not None and list(old.excluded) != list(new.excluded):
        lines.append(f"~ exclude: {list(old.excluded)!r} -> {list(new.excluded)!r}")
    return lines


def _included(old: Mapping[str, str] | None, new: Mapping[str, str] | None) -> Iterator[str]:
    """Yields the files without git that differ; none if one side is the current code."""
    if old is None or new is None:
        return
    for path in sorted({*old, *new}):
        if old.get(path) != new.get(path):
            kind = "A" if path not in old else "D" if path not in new else "M"
            yield f"{kind} {path} (not tracked by git)"


def _environment(old: Mapping[str, Any], new: Mapping[str, Any]) -> Sequence[str] | None:
    """Returns the differences in machine and packages; None where one side is not known."""
    if not old or not new:
        return None
    from nemo_airflow.reproduction.facts import machine_of

    before, after = ({**machine_of(side), **side.get("packages", {})} for side in (old, new))
    return changes_of(before, after)


def _metrics(metrics: Mapping[str, float]) -> dict[str, str]:
    """Returns the user's metrics as texts: as such, a NaN is equal to another one."""
    return {name: repr(value) for name, value in sorted(metrics.items()) if not name.startswith("system/")}


def _recorded(name: str, where: Where) -> RecordedRun:
    """Reads ``run:ID``, or ``run:KEY`` with a job's key."""
    from nemo_airflow.tracking.mlflow.jobs import JobRuns
    from nemo_airflow.tracking.mlflow.recorded import recorded_run

    run_id = JobRuns(where.tracking_uri, where.conn_id).find(name.removeprefix(_RUN)).run_id
    return recorded_run(run_id, where.tracking_uri, where.conn_id)


def _last_good(name: str, where: Where) -> tuple[str, str]:
    """Returns the names of the run that succeeded last before another one, and of that."""
    from nemo_airflow.tracking.mlflow.recorded import last_good_run

    run_id = name.removeprefix(_RUN)
    return f"{_RUN}{last_good_run(run_id, where.tracking_uri, where.conn_id)}", f"{_RUN}{run_id}"


def _listed(sections: Mapping[str, Sequence[str] | None]) -> Iterator[str]:
    for name, lines in sections.items():
        yield f"{name}: not compared\n" if lines is None else f"{name}:\n" if lines else f"{name}: the same\n"
        yield from (f"  {line}\n" for line in lines or ())
