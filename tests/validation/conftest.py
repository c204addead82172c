import subprocess
import sys
import uuid

import airflow.settings  # noqa: F401 - its logging holds on to the output that is there when it is imported first
import pytest

from nemo_airflow.cli import main

TRAINER = """
import dataclasses
from typing import Literal


@dataclasses.dataclass
class Model:
    hidden: int
    kind: Literal["mlp", "cnn"] = "mlp"
    layers: list[int] = dataclasses.field(default_factory=list)

    def validate(self):
        if self.hidden > 4096:
            raise ValueError("hidden has to be at most 4096")


def train(model: Model, data: str, epochs: int = 1, lr: float = 0.1, until: str = ""):
    print("trained")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that is the current one, with a module of its own name ``TRAINER`` in texts that are written into it."""
    here = tmp_path / "project"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(here)
    return here


@pytest.fixture
def write(folder):
    """Writes files, in which TRAINER is the name of the trainer's module."""
    name = f"trainer_{uuid.uuid4().hex[:8]}"
    (folder / f"{name}.py").write_text(TRAINER)

    def files(**texts):
        for each, text in texts.items():
            path = folder / each.replace("__", "/").replace("_yaml", ".yaml").replace("_py", ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.replace("TRAINER", name))
        return name

    yield files
    sys.modules.pop(name, None)


@pytest.fixture
def commit(folder):
    """Commits all files of the folder."""

    def all_files():
        git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.invalid"]
        if not (folder / ".git").exists():
            subprocess.run([*git, "init", "-q"], check=True)
        for arguments in (["add", "."], ["commit", "-q", "-m", "x"]):
            subprocess.run([*git, *arguments], check=True)

    return all_files


@pytest.fixture
def validate(capfd):
    """Runs the command; returns its exit code and its output."""

    def run(*arguments):
        capfd.readouterr()
        code = main(["validate", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run
