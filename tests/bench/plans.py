"""``make bench``: what it takes to write, digest, load and validate a config, beside Fiddle's JSON and OmegaConf.

The same graph in each, in one process, turn by turn, medians of several; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fiddle as fdl
from fiddle.experimental import serialization
from omegaconf import OmegaConf
from plan_targets import Block, Layer, Net

from nemo_airflow import Config
from nemo_airflow.config import apply_overrides, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.runner.plan import build

SIZES = (100, 1_000, 10_000)
LAYERS_A_BLOCK = 9
TOO_LONG = 10.0
"""Seconds after which a step is not done again."""

Work = dict[str, Callable[[], object]]


def main() -> None:
    """Runs the benchmark and prints its table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="turns, after one to warm up")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="configs in the graph")
    options = parser.parse_args()
    print("| configs | | `nemo_airflow` | Fiddle's JSON | ratio | OmegaConf | ratio |")
    print("|--:|---|--:|--:|--:|--:|--:|")
    for size in options.sizes:
        report(size, measure(size, options.repeat))


def graph(size: int, config: Callable[..., object]) -> object:
    """Returns a network of that many configs, each made by ``config``."""
    blocks = []
    for number in range(size // (LAYERS_A_BLOCK + 1)):
        layers = [
            config(Layer, width=64 + place, rate=0.1 * place, name=f"layer {number}.{place}")
            for place in range(LAYERS_A_BLOCK)
        ]
        blocks.append(config(Block, layers=layers, skip=bool(number % 2)))
    return config(Net, blocks=blocks)


def measure(size: int, repeat: int) -> dict[str, dict[str, float]]:
    """Returns the median seconds of each step, by contender."""
    contenders = {"ours": ours(size), "fiddle": fiddles(size), "omegaconf": omegaconfs(size)}
    times: dict[str, dict[str, list[float]]] = {
        name: {step: [] for step in steps} for name, steps in contenders.items()
    }
    for turn in range(repeat + 1):
        for name, steps in contenders.items():
            for step, work in steps.items():
                known = times[name][step]
                if known and known[0] > TOO_LONG:
                    continue
                gc.collect()
                begun = time.perf_counter()
                work()
                taken = time.perf_counter() - begun
                if turn or taken > TOO_LONG:
                    known.append(taken)
        print(f"\r{size} configs, turn {turn} of {repeat} ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: {step: statistics.median(some) for step, some in steps.items()} for name, steps in times.items()}


def ours(size: int) -> Work:
    """Plans, checked against the annotations when they are validated and loaded."""
    config = graph(size, Config)
    plan = plans.to_plan(config)
    text = plans.dumps(plan)
    allow = ["plan_targets."]
    return {
        "write": lambda: plans.dumps(plans.to_plan(config, check=False)),
        "digest": lambda: plans.digest(plans.to_plan(config, check=False)),
        "load": lambda: plans.from_plan(text, allow),
        "validate": lambda: validate(config),
        "override": lambda: apply_overrides(config, ["blocks.0.skip=true"]),
        "build": lambda: build(plan, allow),
    }


def fiddles(size: int) -> Work:
    """Fiddle's own JSON, which has no digest and validates nothing: the SHA-256 of its text stands for one."""
    config = graph(size, fdl.Config)
    text = serialization.dump_json(config)
    return {
        "write": lambda: serialization.dump_json(config),
        "digest": lambda: hashlib.sha256(serialization.dump_json(config).encode()).hexdigest(),
        "load": lambda: serialization.load_json(text),
        "build": lambda: fdl.build(config),
    }


def omegaconfs(size: int) -> Work:
    """OmegaConf's structured configs, with their JSON; merging into the schema is what validates."""
    nodes = graph(size, lambda target, **arguments: {"_target_": f"plan_targets.{target.__name__}", **arguments})
    plain = without_targets(nodes)
    config = OmegaConf.create(nodes)
    text = json.dumps(OmegaConf.to_container(config), sort_keys=True)
    schema = OmegaConf.structured(Net)

    def digest() -> str:
        return hashlib.sha256(json.dumps(OmegaConf.to_container(config), sort_keys=True).encode()).hexdigest()

    return {
        "write": lambda: json.dumps(OmegaConf.to_container(config), sort_keys=True),
        "digest": digest,
        "load": lambda: OmegaConf.create(json.loads(text)),
        "validate": lambda: OmegaConf.merge(schema, plain),
    }


def without_targets(node: object) -> object:
    """Returns a graph without the ``_target_`` keys, which a schema does not know."""
    if isinstance(node, dict):
        return {key: without_targets(value) for key, value in node.items() if key != "_target_"}
    return [without_targets(value) for value in node] if isinstance(node, list) else node


def report(size: int, medians: dict[str, dict[str, float]]) -> None:
    """Prints the rows of one size."""
    mine = medians["ours"]
    for number, step in enumerate(mine):
        cells = [f"{size:,}" if not number else "", step, shown(mine[step])]
        for other in ("fiddle", "omegaconf"):
            theirs = medians[other].get(step)
            cells += ["", ""] if theirs is None else [shown(theirs), f"{theirs / mine[step]:.1f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def shown(seconds: float) -> str:
    """Returns a time in milliseconds, or in seconds from one on, in three digits."""
    if seconds >= 1:
        return f"{seconds:.{2 if seconds < 10 else 1 if seconds < 100 else 0}f} s"
    return f"{seconds * 1e3:.{2 if seconds < 0.01 else 1 if seconds < 0.1 else 0}f} ms"


if __name__ == "__main__":
    main()
