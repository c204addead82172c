"""What the jobs of the tests of lineage run."""

from pathlib import Path

from nemo_airflow.runner import artifact, output_dir


def make(text: str) -> dict:
    path = Path(output_dir(), "model.txt")
    path.write_text(text)
    return {"model": artifact(path)}


def use(model: Path, bad: bool = False) -> str:
    if bad:
        raise MemoryError("too large")
    return model.read_text()
