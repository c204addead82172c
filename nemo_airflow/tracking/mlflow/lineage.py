"""What a run, a model or an artifact was made from, and what was made from it, as the runs in MLflow have it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.tracking.base import ARTIFACT_DIGESTS, INPUT, INPUT_RUN, REPRODUCES, VARIATION
from nemo_airflow.tracking.mlflow import fields
from nemo_airflow.tracking.mlflow.jobs import JobRun, JobRuns
from nemo_airflow.tracking.mlflow.store import RUN_ID

_DIGEST = re.compile(r"[0-9a-f]{64}")
REPRODUCTION_OF, VARIATION_OF = "reproduction", "variation"
_USERS = 1000
"""Runs that are shown as users of the artifacts of one run."""


@dataclasses.dataclass(frozen=True)
class Use:
    """An artifact that a run was given; or, as a whole, another run that it reproduces.

    Attributes:
        name: Its name; ``reproduction`` or ``variation`` for a run.
        digest: Its digest, or empty.
        source: The id of the run that made it; else its job, or the address where it was.
        run_id: The run that was given it.
    """

    name: str
    digest: str
    source: str
    run_id: str

    @property
    def is_whole_run(self) -> bool:
        """Whether a run was reproduced, rather than an artifact of it used."""
        return not self.digest and self.name in (REPRODUCTION_OF, VARIATION_OF)


_Step = Callable[[JobRun], tuple[list[Use], list[JobRun]]]


@dataclasses.dataclass(frozen=True)
class Lineage:
    """Runs and the artifacts between them.

    Attributes:
        start: The ids of the runs that were asked for.
        runs: All runs, by their ids; a run that was deleted is not among them.
        uses: What each was given.
        cut: Whether there is more, beyond the depth.
    """

    start: tuple[str, ...]
    runs: Mapping[str, JobRun]
    uses: tuple[Use, ...]
    cut: bool = False

    def sources(self, run_id: str) -> list[Use]:
        """Returns what a run was given."""
        return [use for use in self.uses if use.run_id == run_id]

    def users(self, run_id: str) -> list[Use]:
        """Returns where what a run has made was used."""
        return [use for use in self.uses if use.source == run_id]


def find_lineage(
    what: str, *, up: bool = True, down: bool = True, depth: int = 10, tracking_uri: str | None = None,
    conn_id: str | None = None,
) -> Lineage:  # fmt: skip
    """Returns where something comes from, and what came of it. Blocks.

    Args:
        what: The id of a run, a job's key or the beginning of one, or the digest of an artifact: of this the runs that
            made it, or where there is none those that were given it.
        up: Whether to follow what it was made from.
        down: Whether to follow what was made from it.
        depth: How many runs one behind the other.
        tracking_uri: MLflow's address; found as for a tracker when None.
        conn_id: An Airflow connection with MLflow's address and login.

    Raises:
        TrackingError: There is no such thing, or MLflow is away.
    """
    runs = JobRuns(tracking_uri, conn_id)
    start = _start(runs, what)
    search = _Search(runs, {run.run_id: run for run in start})
    if up:
        search.follow(start, search.sources, depth)
    if down:
        search.follow(start, search.users, depth)
    uses = sorted(search.uses, key=lambda use: (use.run_id, use.name, use.source))
    return Lineage(tuple(run.run_id for run in start), search.found, tuple(uses), search.cut)


def _start(runs: JobRuns, what: str) -> list[JobRun]:
    if not _DIGEST.fullmatch(what):
        return [runs.find(what.removeprefix("run:"))]
    of_input = what[: fields.INPUT_DIGEST_LENGTH]
    if found := list(_makers(runs, what)) or runs.matching(f"dataset.digest = '{of_input}'", _USERS):
        return found
    raise TrackingError(f"no run in {runs.uri} has made or used an artifact with the digest {what}")


def _makers(runs: JobRuns, digest: str) -> Iterator[JobRun]:
    number = 0
    while runs.matching(f"tags.`{ARTIFACT_DIGESTS.format(number)}` LIKE '%'", 1):
        yield from runs.matching(f"tags.`{ARTIFACT_DIGESTS.format(number)}` LIKE '%{digest}%'", _USERS)
        number += 1


class _Search:
    """Follows artifacts from run to run.

    Args:
        runs: Where the runs are.
        found: Those that are known, by their ids.
    """

    def __init__(self, runs: JobRuns, found: dict[str, JobRun]) -> None:
        self._runs = runs
        self.found = found
        self.uses: set[Use] = set()
        self.cut = False

    def follow(self, start: Sequence[JobRun], step: _Step, depth: int) -> None:
        """Goes from runs to those behind them, so many times at most."""
        seen = {run.run_id for run in start}
        for level in range(depth + 1):
            steps = [step(run) for run in start]
            if level == depth:
                self.cut = self.cut or any(uses for uses, _ in steps)
                return
            self.uses.update(use for uses, _ in steps for use in uses)
            following = {run.run_id: run for _, runs in steps for run in runs if run.run_id not in seen}
            seen |= following.keys()
            self.found.update(following)
            start = list(following.values())

    def sources(self, run: JobRun) -> tuple[list[Use], list[JobRun]]:
        """Returns what a run was given, and the runs that made it."""
        uses = list(uses_of(run))
        return uses, [found for run_id in dict.fromkeys(use.source for use in uses) if (found := self._run(run_id))]

    def users(self, run: JobRun) -> tuple[list[Use], list[JobRun]]:
        """Returns where what a run has made was used, and these runs."""
        runs = self._runs.matching(f"tags.`{INPUT_RUN}{run.run_id}` LIKE '%'", _USERS)
        return [use for user in runs for use in uses_of(user) if use.source == run.run_id], runs

    def _run(self, run_id: str) -> JobRun | None:
        """Returns a run; None for a job without one, an address, and a run that was deleted."""
        if run_id in self.found:
            return self.found[run_id]
        return self._runs.get(run_id) if RUN_ID.fullmatch(run_id) else None


def uses_of(run: JobRun) -> Iterator[Use]:
    """Yields the artifacts that a run was given, and the run that it reproduces."""
    if original := run.tags.get(REPRODUCES):
        yield Use(VARIATION_OF if run.tags.get(VARIATION) else REPRODUCTION_OF, "", original, run.run_id)
    for tag, text in run.tags.items():
        if tag.startswith(INPUT):
            source, _, digest = text.rpartition(" ")
            yield Use(tag.removeprefix(INPUT), digest, source, run.run_id)
