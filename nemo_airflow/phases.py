"""The phases of a job, and why it waited: a value that is kept where people look for it, while it runs and later."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from nemo_airflow.clean import clean_text
from nemo_airflow.connections import redact
from nemo_airflow.job import JobHandle, JobState, JobStatus
from nemo_airflow.stream import Record

PENDING, RUNNING, ENDED = "pending", "running", "ended"
"""States of a job. Each lasts until the next one."""

AWAY, KEEPING = "away", "keeping"
"""What goes on beside these: its back-end cannot be reached; a worker keeps its outputs. Each has an end of its own."""

AT_ONCE, SOON, LATER, SELDOM = 1.0, 5.0, 30.0, 300.0
"""Seconds, at least, between two times that something new of a job is shown: its state; another reason, or its host;
other metrics; that it is alive."""

_MOST = 50
_LONGEST_WHY = 300
_LONGEST_NAME = 100
_LONGEST_NUMBER = 32
_LONGEST_TEXT = 5000
_MOST_METRICS = 20

_STATES = (PENDING, RUNNING, ENDED)


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase of a job.

    Attributes:
        state: See :data:`PENDING` and :data:`AWAY`.
        why: The reason, in one line; may be empty. That of an end begins with the final state.
        at: When it began, seconds since the epoch.
        until: When it ended; None if it has not.
    """

    state: str
    why: str
    at: float
    until: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the phase as plain JSON types."""
        until = {} if self.until is None else {"until": self.until}
        return {"state": self.state, "why": self.why, "at": self.at, **until}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Phase:
        """The inverse of ``to_json``."""
        until = data.get("until")
        return cls(str(data["state"]), str(data["why"]), float(data["at"]), None if until is None else float(until))


@dataclasses.dataclass(frozen=True)
class Phases:
    """The phases of a job in their order: the first and the newest. Those of attempts that it continues come before.

    What is told twice changes nothing: who follows a job anew is told from its beginning again.

    Attributes:
        items: The phases.
        left_out: How many were left out behind the first.
    """

    items: tuple[Phase, ...] = ()
    left_out: int = 0

    @property
    def now(self) -> Phase | None:
        """The newest phase that goes on; None before there is any."""
        return next((phase for phase in reversed(self.items) if phase.until is None), None)

    def enter(self, state: str, why: str, at: float) -> Phases:
        """Returns the phases with a new state of the job, or a new reason of the same."""
        at, why, last = round(at, 3), _line(why), self._state
        if any(phase.state == state and phase.at == at for phase in self.items):
            return self
        if last is None:
            return self._add(Phase(state, why, at))
        if last.state == state and (not why or why == last.why):
            return self
        if last.state == state == PENDING and not last.why:
            return self._replace(last, dataclasses.replace(last, why=why))
        if last.state == ENDED and state != PENDING:  # who looks at an ended job again may see it as it was
            return self
        return self._begin(last, Phase(state, why, max(at, last.at)))

    def start(self, at: float, *, again: bool) -> Phases:
        """Returns the phases with what the job itself says of its start.

        Args:
            at: When it has started.
            again: Whether the back-end has started it before.
        """
        at, last = round(at, 3), self._state
        if any(phase.state == RUNNING and phase.at == at for phase in self.items):
            return self
        if last is None or last.state != RUNNING:
            return self.enter(RUNNING, "", at)
        before = [phase for phase in self.items if phase.state in _STATES and phase is not last]
        if again:
            return self._begin(last, Phase(RUNNING, "", max(at, last.at)))
        # Its back-end had said that it runs, which was seen later than it was so.
        at = max([at, *(phase.at for phase in before[-1:])])
        corrected = self._replace(last, dataclasses.replace(last, at=at))
        return corrected._replace(before[-1], dataclasses.replace(before[-1], until=at)) if before else corrected

    def open(self, state: str, why: str, at: float) -> Phases:
        """Returns the phases with one that goes on beside the job's own, unless it does."""
        if self._find_open(state) is not None:
            return self
        return self._add(Phase(state, _line(why), round(at, 3)))

    def close(self, state: str, at: float, why: str = "") -> Phases:
        """Returns the phases with the end of one that went on beside the job's own, if it did."""
        if (phase := self._find_open(state)) is None:
            return self
        until = max(round(at, 3), phase.at)
        return self._replace(phase, dataclasses.replace(phase, until=until, why=_line(why) or phase.why))

    def to_json(self) -> dict[str, Any]:
        """Returns the phases as plain JSON types."""
        left_out = {"left_out": self.left_out} if self.left_out else {}
        return {"phases": [phase.to_json() for phase in self.items], **left_out}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Phases:
        """The inverse of ``to_json``.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        return cls(tuple(map(Phase.from_json, data["phases"])), int(data.get("left_out", 0)))

    def to_text(self) -> str:
        """Returns the phases as compact JSON that fits into a tag of MLflow; what does not is left out whole."""
        phases = self
        while len(text := json.dumps(phases.to_json(), ensure_ascii=False, separators=(",", ":"))) > _LONGEST_TEXT:
            phases = phases._shorten()
        return text

    @property
    def _state(self) -> Phase | None:
        return next((phase for phase in reversed(self.items) if phase.state in _STATES), None)

    def _find_open(self, state: str) -> Phase | None:
        return next((phase for phase in reversed(self.items) if phase.state == state and phase.until is None), None)

    def _begin(self, last: Phase, new: Phase) -> Phases:
        ended = self if last.state == ENDED else self._replace(last, dataclasses.replace(last, until=new.at))
        return ended._add(new)

    def _add(self, phase: Phase) -> Phases:
        phases = dataclasses.replace(self, items=(*self.items, phase))
        return phases._shorten() if len(phases.items) > _MOST else phases

    def _replace(self, old: Phase, new: Phase) -> Phases:
        return dataclasses.replace(self, items=tuple(new if phase is old else phase for phase in self.items))

    def _shorten(self) -> Phases:
        """Leaves out the oldest but the first; what the job is in now stays."""
        state = self._state
        out = next(phase for phase in self.items[1:] if phase is not state)
        return Phases(tuple(phase for phase in self.items if phase is not out), self.left_out + 1)


class JobView:
    """What is known of one job while it is followed: its phases, its newest metrics, when it last gave a sign of life.

    Args:
        handle: The job.
        phases: Those that were seen before, as of an attempt that the job continues.
        resumes: Whether those that an earlier follower has seen are told later, by :meth:`resume`.
    """

    def __init__(self, handle: JobHandle, phases: Phases | None = None, *, resumes: bool = False) -> None:
        self.key = handle.key
        self.phases = phases or Phases()
        self.on_change: Callable[[float], None] = lambda pace: None
        """Called whenever something is new, with how urgent that is: :data:`AT_ONCE` or another of these."""
        self._host = ""
        self._alive_at = 0.0
        self._metrics: dict[str, Any] = {}
        self._has_started = False
        self._is_away = False
        self._steps: list[Callable[[Phases], Phases]] | None = [] if resumes else None
        if handle.submitted_at:
            self._step(lambda phases: phases.enter(PENDING, "", handle.submitted_at))

    @property
    def is_resuming(self) -> bool:
        """Whether :meth:`resume` is to be called."""
        return self._steps is not None

    def resume(self, earlier: Mapping[str, Any] | None) -> None:
        """Goes on where an earlier follower has ended.

        Args:
            earlier: What its :meth:`to_json` was; None where there was none, or it was another job's.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        steps, self._steps = self._steps or (), None
        if earlier is None:
            return
        phases = Phases.from_json(earlier)
        self._host, self._metrics = self._host or str(earlier["host"]), {**earlier["metrics"], **self._metrics}
        self._alive_at = max(self._alive_at, float(earlier["alive_at"]))
        for step in steps:
            phases = step(phases)
        self._set(phases)

    def see(self, status: JobStatus | None, outage: str = "", *, is_over: bool = False) -> None:
        """Takes one look at the job.

        Args:
            status: What its back-end says, if that is new.
            outage: What is said of a back-end, or a job in it, that cannot be reached; or empty.
            is_over: Whether that is that it can be reached again.
        """
        now = time.time()
        if outage and not is_over:
            self._is_away = True
            self._step(lambda phases: phases.open(AWAY, outage, now))
        elif is_over or not self._is_away:  # an earlier follower may have left while it could not be reached
            self._is_away = False
            self._step(lambda phases: phases.close(AWAY, now))
        if status is None or status.state not in (JobState.PENDING, JobState.RUNNING):
            return
        # What a running job waits for is not its back-end's to say.
        why = status.reason if status.state is JobState.PENDING else ""
        self._step(lambda phases: phases.enter(str(status.state), why, now))

    def take(self, record: Record) -> None:
        """Takes a record of the job's stream."""
        self._alive_at = max(self._alive_at, min(record.timestamp, time.time()))
        if record.type == "start":
            at, again = min(record.timestamp, time.time()), self._has_started
            self._has_started = True
            self._step(lambda phases: phases.start(at, again=again))
        elif record.type == "environment":
            self._host = _line(str(record.data.get("host") or ""))
            self.on_change(SOON)
        elif record.type == "metrics":
            self._take_points(record.data.get("points"))
        else:
            self.on_change(SELDOM)

    def end(self, status: JobStatus, reason: str, at: float) -> None:
        """Takes how the job has ended.

        Args:
            status: Its final status.
            reason: The error in one line, or empty.
            at: When it ended, as far as that is known; else 0.
        """
        now = time.time()
        kind = f" ({status.failure})" if status.failure and status.failure != str(status.state) else ""
        why = f"{status.state}{kind}{': ' if reason else ''}{reason}"
        self._step(lambda phases: phases.close(AWAY, now).enter(ENDED, why, min(at, now) or now))

    def keep(self, outputs: str) -> None:
        """Takes that a worker begins to keep the outputs of the job, and what they are, in words."""
        now = time.time()
        self._step(lambda phases: phases.open(KEEPING, outputs, now))

    def end_keeping(self, error: str = "") -> None:
        """Takes that it has ended, or failed."""
        now = time.time()
        self._step(lambda phases: phases.close(KEEPING, now, error))

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as plain JSON types."""
        now = self.phases.now
        return {
            "key": self.key,
            "state": now.state if now else "",
            "why": now.why if now else "",
            "host": self._host,
            **self.phases.to_json(),
            "metrics": dict(self._metrics),
            "alive_at": round(self._alive_at, 3),
            "at": round(time.time(), 3),
        }

    def _take_points(self, points: Any) -> None:
        for point in points if isinstance(points, list) else ():
            name, value = point[:2] if isinstance(point, list) and len(point) > 1 else ("", None)
            if not isinstance(name, str) or not isinstance(value, (int, float, str)):
                continue
            is_taken = len(self._metrics) < _MOST_METRICS and len(name) <= _LONGEST_NAME and redact(name) == name
            if name in self._metrics or is_taken:
                self._metrics[name] = value if not isinstance(value, str) else value[:_LONGEST_NUMBER]
        self.on_change(LATER)

    def _step(self, step: Callable[[Phases], Phases]) -> None:
        if self._steps is not None:
            self._steps.append(step)
        self._set(step(self.phases))

    def _set(self, phases: Phases) -> None:
        if phases is self.phases:
            return
        was, self.phases = self.phases.now, phases
        now = phases.now
        self.on_change(SOON if was is not None and now is not None and was.state == now.state else AT_ONCE)


def _line(text: str) -> str:
    line = redact(clean_text(" ".join(text.split())))
    return line if len(line) <= _LONGEST_WHY else f"{line[: _LONGEST_WHY - 1]}…"
