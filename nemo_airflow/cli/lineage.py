"""Shows what a run, a model or an artifact was made from, and what was made from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from nemo_airflow.artifacts.earlier import run_of_model
from nemo_airflow.cli.output import JSON, print_json
from nemo_airflow.cli.terminal import keep_output_clean, say
from nemo_airflow.config.views.picture import mermaid_label
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.tracking.mlflow.jobs import JobRun
from nemo_airflow.tracking.mlflow.lineage import Lineage, Use, find_lineage

MERMAID = "mermaid"
_SHORT = 12
"""Characters of a digest that are shown."""


def run(
    what: str, *, up: bool, down: bool, depth: int, output: str, tracking_uri: str | None, conn_id: str | None
) -> int:
    """Prints the lineage; returns 0.

    Args:
        what: A run's id, a job's key, ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, or an artifact's digest.
        up: Whether to show only what it was made from.
        down: Whether to show only what was made from it.
        depth: How many runs one behind the other.
        output: ``text``, ``json`` or ``mermaid``.
        tracking_uri: MLflow's address, or None.
        conn_id: An Airflow connection with MLflow's address and login, or None.

    Raises:
        SettingsError: The depth is less than 1.
        TrackingError: There is no such thing, or MLflow is away.
        ArtifactError: There is no such model.
    """
    keep_output_clean()
    if depth < 1:
        raise SettingsError(f"--depth {depth}: at least 1 run is followed")
    if what.startswith("models:/"):
        what = run_of_model(what, tracking_uri=tracking_uri or "", conn_id=conn_id or "")
    both = up == down
    found = find_lineage(
        what, up=up or both, down=down or both, depth=depth, tracking_uri=tracking_uri, conn_id=conn_id
    )
    if output == JSON:
        print_json(_to_json(found))
    else:
        print("\n".join(_mermaid(found) if output == MERMAID else _text(found)))
    if found.cut:
        say(f"there is more: --depth {2 * depth} follows it further")
    return 0


def _text(found: Lineage) -> Iterator[str]:
    for run_id in found.start:
        yield _name(found.runs[run_id])
        for title, below in (("made from", _above(found)), ("used by", _below(found))):
            if lines := list(_tree(run_id, below, "    ", {run_id})):
                yield f"  {title}:"
                yield from lines


_Steps = Callable[[str], Iterator[tuple[str, str]]]
"""Gives for a run the lines below it, each with the id of the run that it leads to, or an empty text."""


def _above(found: Lineage) -> _Steps:
    def steps(run_id: str) -> Iterator[tuple[str, str]]:
        for use in found.sources(run_id):
            maker = found.runs.get(use.source)
            link = "of" if use.is_whole_run else "by"
            yield f"{_label(use)} {link} {_name(maker) if maker else use.source}", use.source if maker else ""

    return steps


def _below(found: Lineage) -> _Steps:
    def steps(run_id: str) -> Iterator[tuple[str, str]]:
        for use in found.users(run_id):
            link = "" if use.is_whole_run else "in "
            yield f"{_label(use)} {link}{_name(found.runs[use.run_id])}", use.run_id

    return steps


def _tree(run_id: str, steps: _Steps, indent: str, seen: set[str]) -> Iterator[str]:
    for line, following in steps(run_id):
        again = following in seen
        yield f"{indent}{line}{', as above' if again else ''}"
        if following and not again:
            seen.add(following)
            yield from _tree(following, steps, f"{indent}  ", seen)


def _mermaid(found: Lineage) -> Iterator[str]:
    """Yields the text of a flowchart, which GitHub, MLflow's notes and Markdown pages draw."""
    keys = dict.fromkeys([*found.runs, *(use.source for use in found.uses)])
    ids = {key: f"n{number}" for number, key in enumerate(keys)}
    yield "flowchart LR"
    for key, number in ids.items():
        run = found.runs.get(key)
        label = (run.name, run.key, run.state) if run else (key,)
        yield f'  {number}["{mermaid_label(*label)}"]'
    for use in found.uses:
        yield f'  {ids[use.source]} -->|"{mermaid_label(use.name)}"| {ids[use.run_id]}'
    for run_id in found.start:
        yield f"  style {ids[run_id]} stroke-width:3px"


def _to_json(found: Lineage) -> dict[str, object]:
    facts = ("run_id", "key", "name", "state", "dag_id", "task_id", "began")
    return {
        "start": list(found.start),
        "runs": [{name: getattr(run, name) for name in facts} for run in found.runs.values()],
        "uses": [dataclasses.asdict(use) for use in found.uses],
        "cut": found.cut,
    }


def _label(use: Use) -> str:
    return f"{use.name} {use.digest[:_SHORT]}".strip()


def _name(run: JobRun) -> str:
    return f"{run.key} ({run.state}, run {run.run_id})"
