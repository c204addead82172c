"""A seed brings back the same kills in the same order."""

import random
import re
import subprocess
import sys
from pathlib import Path

from kill_plan import KillPlan

HERE = Path(__file__).parent
THINGS = ("sshd", "connections", "slurmctld")


def test_one_seed_plans_the_same_kills_in_any_process():
    command = f"from kill_plan import KillPlan; print(KillPlan.draw(7, 5, {THINGS!r}))"
    other = subprocess.run([sys.executable, "-c", command], cwd=HERE, text=True, capture_output=True, check=True)
    random.seed(3)  # is nobody's
    assert str(KillPlan.draw(7, 5, THINGS)) == other.stdout.strip()
    assert KillPlan.draw(8, 5, THINGS) != KillPlan.draw(7, 5, THINGS)


def test_what_one_killer_draws_does_not_depend_on_the_others():
    few, many = KillPlan.draw(7, 4, ()), KillPlan.draw(7, 40, THINGS)
    assert many.workers[:4] == few.workers
    assert many.triggerers[: len(few.triggerers)] == few.triggerers


def test_nothing_random_is_drawn_outside_the_plan():
    for name in ("harness.py", "random_kills.py"):
        assert re.findall(r"random\.(?!SystemRandom\b)\w+", (HERE / name).read_text()) == []
