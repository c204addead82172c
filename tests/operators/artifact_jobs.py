"""What the tests of artifacts run as jobs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from nemo_airflow.runner import Artifact, artifact, fetch_outputs, output_dir


def write_folder(root: Path, files: int, seed: str = "") -> None:
    """Writes a folder of many small files, with a program, a link to a file and a link to a folder."""
    for number in range(files):
        path = root / f"part-{number % 10}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{seed}{number}\n" * (number % 50))
    (root / "run.sh").write_text("#!/bin/sh\necho hello\n")
    (root / "run.sh").chmod(0o755)
    (root / "latest").symlink_to("part-0/0.txt")
    (root / "first").symlink_to("part-0")


def make(files: int = 20, size: int = 1000, seed: str = "") -> dict[str, Any]:
    """Returns a file among the outputs, and a folder from elsewhere."""
    model = Path(output_dir()) / "checkpoints" / "model.bin"
    model.parent.mkdir(parents=True, exist_ok=True)
    with model.open("wb") as file:
        for _ in range(size // 1000):
            file.write(os.urandom(1000))
    data = Path("data").absolute()
    write_folder(data, files, seed)
    return {"model": artifact(model), "data": artifact(data), "count": files}


def make_file(text: str) -> Artifact:
    """Returns a file from the working directory."""
    Path("result.txt").write_text(text)
    return artifact("result.txt")


@dataclasses.dataclass
class Source:
    """An inner config with an artifact."""

    model: Path
    data: list[Artifact]


def take(model: Path, data: Artifact, anything, count: int = 0, source: Source | None = None) -> dict[str, Any]:
    """Returns what kinds of values arrived, and the digests of their content."""
    from nemo_airflow.runner.digests import digest_of

    found = {
        "kinds": [isinstance(model, Path), isinstance(data, Artifact), isinstance(anything, Path)],
        "names": [model.name, data.path().name],
        "digests": [digest_of(str(model)), digest_of(str(data.path())), data.digest],
        "links": [os.readlink(data.path() / "latest"), os.readlink(data.path() / "first")],
        "program": os.access(data.path() / "run.sh", os.X_OK),
        "run": data.run_id,
        "count": count,
    }
    if source is not None:
        found["source"] = [source.model.name, isinstance(source.data[0], Artifact)]
    return found


def take_all(trained: dict[str, Any]) -> list[str]:
    """Returns the digests of all that a whole result has."""
    from nemo_airflow.runner.digests import digest_of

    return [digest_of(str(trained["model"])), digest_of(str(trained["data"]))]


def read_texts(files: list[Path]) -> list[str]:
    """Returns the texts of several files."""
    return [file.read_text() for file in files]


def fetch(run_id: str) -> list[str]:
    """Returns the files of an earlier run, and the text of one of them."""
    whole = fetch_outputs(run_id)
    one = fetch_outputs(run_id, "data/part-1/1.txt", "one")
    return [one.read_text(), *sorted(path.name for path in whole.iterdir())]


def make_with_what_json_has_not() -> dict[str, Any]:
    """Returns an artifact beside an object."""
    return {"model": make_file("weights"), "optimizer": object()}


def spoil() -> Artifact:
    """Returns a file and changes it after that."""
    path = Path(output_dir()) / "model.bin"
    path.write_text("right")
    made = artifact(path)
    path.write_text("wrong")
    return made


def pass_on(model: Artifact) -> dict[str, Any]:
    """Returns the artifact that it was given."""
    return {"same": model}
