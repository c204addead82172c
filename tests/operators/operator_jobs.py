"""What the operator's tests run as jobs."""

import asyncio
import dataclasses
import hashlib
import os
import signal
import time
from pathlib import Path

from nemo_airflow import log_input, log_model
from nemo_airflow.runner.report import log_metric, output_dir


@dataclasses.dataclass
class Model:
    hidden: int = 8
    name: str = "mlp"


@dataclasses.dataclass
class DeepModel(Model):
    depth: int = 2


def train(model: Model, learning_rate: float = 0.1, tags: list[str] | None = None) -> dict:
    print(f"training {model.name} with {model.hidden}")
    return {"hidden": model.hidden, "name": model.name, "learning_rate": learning_rate, "tags": tags}


def number() -> int:
    return 21


def double(value: int) -> int:
    return 2 * value


def log_model_of(data: str) -> None:
    """Names the data that it reads and the model that it makes."""
    log_input(data, context="training")
    Path("net.bin").write_text("weights")
    log_model("net.bin", signature={"inputs": [{"name": "x", "type": "double"}]}, input_example=[{"x": 1.0}])


def fail(message: str) -> None:
    raise RuntimeError(message)


def sleep(seconds: float) -> None:
    print("asleep", flush=True)
    time.sleep(seconds)


def fail_until(marker: str, runs: int) -> int:
    """Counts its runs in a file, and fails until there were enough."""
    with open(marker, "a") as file:
        file.write("x")
    count = Path(marker).stat().st_size
    if count < runs:
        raise RuntimeError(f"run {count}")
    return count


def keep(learning_rate: float) -> None:
    """Logs a metric and keeps a file."""
    log_metric("loss", 1.0)
    log_metric("loss", learning_rate)
    (Path(output_dir()) / "model.txt").write_text("weights")


def keep_two() -> None:
    """Keeps two files, one of them in a folder."""
    keep(0.5)
    (Path(output_dir()) / "blocked").mkdir()
    (Path(output_dir()) / "blocked" / "part.txt").write_text("more")


def keep_and_fail() -> None:
    """Keeps a file, then fails."""
    keep(0.5)
    raise ValueError("after the checkpoint")


def count(counter: str) -> None:
    """Adds a line to a file, to show how often it ran."""
    with open(counter, "a") as file:
        file.write("ran\n")


def one_more(value: int = 0) -> int:
    return value + 1


def batches():
    yield 1


async def async_batches():
    yield 1


async def fetch(value: int) -> int:
    await asyncio.sleep(0)
    return value + 1


def digest_of(variable):
    """Writes a variable, and returns the digest of its value."""
    value = os.environ[variable]
    print("it is", value)
    return hashlib.sha256(value.encode()).hexdigest()


def need_memory(gigabytes):
    """Runs out of memory unless so much was asked for."""
    import os

    if int(os.environ["GB"]) < gigabytes:
        raise MemoryError(f"{gigabytes} GB are needed")
    return int(os.environ["GB"])


def sleep_on(seconds: float) -> None:
    """Is not impressed by SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep(seconds)
