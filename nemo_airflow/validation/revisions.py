"""Says what a revision changes: which configs, packages and versions of DAGs, compared with an earlier one."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow.config.views.differences import diff
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.validation.report import Checked, Report


@dataclasses.dataclass(frozen=True)
class Change:
    """What became of a config, a package or a DAG.

    Attributes:
        what: ``config``, ``package`` or ``dag``.
        name: ``dag_id.task_id`` or the config's name; a DAG's id.
        how: ``new``, ``removed`` or ``changed``.
        detail: The differences, a line each; empty where there is nothing to compare.
    """

    what: str
    name: str
    how: str
    detail: Sequence[str] = ()


def examine_revision(revision: str, targets: Sequence[str], allow: Sequence[str]) -> Report:
    """Returns what an earlier revision has, as :func:`~nemo_airflow.validation.examination.examine` does.

    It is read in a checkout of its own, by a process of its own: two versions of a module fit in none. The repository
    is not changed.

    Args:
        revision: The commit, branch or tag.
        targets: As for ``examine``; what the revision does not have is left out.
        allow: What files may import.

    Raises:
        SettingsError: There is no such revision, or no repository here.
    """
    top = Path(_git(Path.cwd(), "rev-parse", "--show-toplevel"))
    commit = _git(top, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", what=f"revision {revision!r}")
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
        checkout = Path(scratch, "checkout")
        _git(top, "clone", "--quiet", "--shared", "--no-checkout", str(top), str(checkout))
        _git(checkout, "checkout", "--quiet", "--detach", commit)
        here = checkout / Path.cwd().resolve().relative_to(top.resolve())
        if not here.is_dir():
            return Report()
        known = [target for target in targets if _is_name(target) or (here / target).exists()]
        if not known:
            return Report()
        options = [text for prefix in allow for text in ("--allow", prefix)]
        done = subprocess.run(
            [sys.executable, "-m", "nemo_airflow.cli", "validate", *known, *options, "-o", "json"],
            cwd=here, env={**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode not in (0, 1):
            raise SettingsError(f"revision {revision!r} cannot be examined: {done.stderr.strip()[-500:]}")
        data = json.loads(done.stdout)
    return Report(configs=[Checked(**each) for each in data["configs"]], dags=data["dags"])


def find_changes(old: Report, new: Report) -> list[Change]:
    """Returns what is changed, configs first.

    A config with a fault has no digest, and counts neither as new nor as removed.
    """
    before, after = ({each.name: each for each in report.configs} for report in (old, new))
    changes = [
        Change("config", name, _how(before.get(name), after.get(name)), _differences(before.get(name), after.get(name)))
        for name in sorted({*before, *after})
        if getattr(before.get(name), "digest", "") != getattr(after.get(name), "digest", "")
        and (name in after or not new.faults)
    ]
    changes += [
        Change("package", name, "changed", [f"{before[name].package[:12]} -> {after[name].package[:12]}"])
        for name in sorted(before.keys() & after.keys())
        if before[name].package != after[name].package
    ]
    changes += [
        Change("dag", name, _how(old.dags.get(name), new.dags.get(name)))
        for name in sorted({*old.dags, *new.dags})
        if old.dags.get(name) != new.dags.get(name) and (name in new.dags or not new.faults)
    ]
    return changes


def _how(before: Any, after: Any) -> str:
    return "new" if before is None else "removed" if after is None else "changed"


def _differences(before: Checked | None, after: Checked | None) -> list[str]:
    if before is None or after is None:
        return []
    plans: list[Mapping[str, Any]] = [before.plan, after.plan]
    return diff(*plans).to_text().splitlines()


def _is_name(target: str) -> bool:
    return ":" in target or not Path(target).exists()


def _git(folder: Path, *arguments: str, what: str = "") -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SettingsError("git is not installed, and --since compares revisions: install git") from error
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"{what} is not in the repository {folder}"]
        raise SettingsError(f"--since: {reason[0]}")
    return done.stdout.strip()
