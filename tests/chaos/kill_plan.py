"""Who is killed when: drawn from a seed before anything runs, so that the same seed brings back the same kills.

Each of those who kill has a generator of its own, named after it: how fast the others are changes nothing of what it
draws.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

_WORKER_DIES = 0.7
_MOST_DEATHS = 4


@dataclass(frozen=True)
class Break:
    """Something besides worker and triggerer is broken.

    Attributes:
        pause: Seconds to wait before.
        name: What.
        share: For how long, as a share of the longest time that it is kept broken.
    """

    pause: float
    name: str
    share: float


@dataclass(frozen=True)
class KillPlan:
    """All kills of a run. All of them are carried out, in this order, however long the jobs take.

    Attributes:
        starts: For each task: seconds between its start and the next one's.
        workers: For each task: after how many seconds each of its first workers is killed.
        triggerers: After how many seconds each of the first triggerers is killed.
        breaks: What else is broken.
    """

    starts: tuple[float, ...]
    workers: tuple[tuple[float, ...], ...]
    triggerers: tuple[float, ...]
    breaks: tuple[Break, ...]

    @classmethod
    def draw(cls, seed: int, tasks: int, things: Sequence[str]) -> KillPlan:
        """Returns the plan of a seed.

        Args:
            seed: The same one gives the same plan.
            tasks: How many tasks run.
            things: Names of what can be broken besides worker and triggerer.
        """
        starts = random.Random(f"{seed}:starts")
        triggerer = random.Random(f"{seed}:triggerer")
        breaker = random.Random(f"{seed}:breaker")
        return cls(
            tuple(starts.uniform(0, 1) for _ in range(tasks)),
            tuple(tuple(_deaths(random.Random(f"{seed}:worker {number}"))) for number in range(tasks)),
            tuple(triggerer.uniform(2, 10) for _ in range(2 + tasks // 2)),
            tuple(
                Break(breaker.uniform(2, 6), breaker.choice(sorted(things)), breaker.uniform(0, 1))
                for _ in range((2 + tasks // 4) * bool(things))
            ),
        )

    def __str__(self) -> str:
        workers = [
            f"worker {number}: {', '.join(f'after {seconds:.3f} s' for seconds in deaths)}"
            for number, deaths in enumerate(self.workers)
            if deaths
        ]
        triggerers = ", ".join(f"after {seconds:.3f} s" for seconds in self.triggerers)
        breaks = ", ".join(f"{each.name} after {each.pause:.3f} s for {each.share:.3f}" for each in self.breaks)
        return "\n".join([*workers, f"triggerer: {triggerers}", *([f"others: {breaks}"] if breaks else [])])


def _deaths(drawn: random.Random) -> list[float]:
    deaths: list[float] = []
    while len(deaths) < _MOST_DEATHS and drawn.random() < _WORKER_DIES:
        deaths.append(drawn.uniform(0.05, 1.0))
    return deaths
