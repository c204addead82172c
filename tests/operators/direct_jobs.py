"""Jobs whose outputs go straight into the shared store."""

import hashlib
import os
import shutil
import signal
import time
from pathlib import Path

from nemo_airflow import artifact, log_artifact, output_dir


def write_file(path: Path, size: int, seed: int = 0) -> None:
    """Writes a file of that size whose content nothing else has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    block = hashlib.sha512(f"{path.name} {seed}".encode()).digest() * 1024
    with path.open("wb") as file:
        for offset in range(0, size, len(block)):
            file.write(offset.to_bytes(8, "big") + block[8 : min(len(block), size - offset)])
    os.truncate(path, size)


def make(large: int = 33 << 20, small: int = 30) -> dict:
    """Makes a large file, a folder of small ones, a link, a program and an empty file; returns artifacts of some."""
    out = Path(output_dir())
    write_file(out / "model.bin", large)
    for number in range(small):
        write_file(out / "parts" / f"{number % 7}" / f"{number}.bin", 100 + number * 37)
    (out / "empty").touch()
    (out / "run.sh").write_text("#!/bin/sh\n")
    (out / "run.sh").chmod(0o755)
    (out / "latest").symlink_to("model.bin")
    (out / "gone").symlink_to("nothing")
    (out / "nemo_airflow").mkdir()
    (out / "nemo_airflow" / "own.txt").write_text("the job's")
    return {"model": artifact(out / "model.bin"), "parts": artifact(out / "parts"), "small": artifact(out / "run.sh")}


def read(model: Path, parts: Path) -> dict:
    """Returns what arrived of the artifacts of ``make``."""
    digest = hashlib.sha256(Path(model).read_bytes()).hexdigest()
    return {"model": digest, "files": sum(path.is_file() for path in Path(parts).rglob("*"))}


def dump_environment() -> dict:
    """Looks for the store's credentials wherever a job can look, and makes an output that is sent."""
    write_file(Path(output_dir()) / "large.bin", 2 << 20)
    seen = [f"{name}={value}" for name, value in os.environ.items()]
    for path in Path(os.environ["NEMO_AIRFLOW_OUTPUT_DIR"]).parent.rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 20:
            seen.append(path.read_bytes().decode("latin-1"))
    (Path(output_dir()) / "seen.txt").write_text("\n".join(seen))
    return {"has_grant": "NEMO_AIRFLOW_OUTPUTS_GRANT" in os.environ}


def lose_the_node(marker: str) -> None:
    """Announces a checkpoint; when it may go on, the disk of its node is lost, and the node itself."""
    out = Path(output_dir())
    write_file(out / "checkpoint" / "weights.bin", 33 << 20)
    log_artifact(out / "checkpoint")
    write_file(out / "not announced.bin", 2 << 20)
    while not Path(marker).exists():
        time.sleep(0.05)
    shutil.rmtree(out.parent)
    os.kill(os.getppid(), signal.SIGKILL)


def read_and_dump(model: Path, parts: Path) -> dict:
    """Reads artifacts, and looks for leave to fetch them wherever a job can look."""
    read(model, parts)
    print("\n".join(f"{name}={value}" for name, value in os.environ.items()))
    return {"has_grant": "NEMO_AIRFLOW_INPUTS_GRANT" in os.environ}


def has_weights() -> int:
    """Returns the bytes of a file of the package."""
    return Path("weights.bin").stat().st_size
