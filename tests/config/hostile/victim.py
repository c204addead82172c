"""What the hostile plans may import: the code of somebody who imports what is dangerous for purposes of their own."""

import functools
import os
import subprocess
from os import system

import pydantic

run_it = subprocess.run
partial = functools.partial
environment = os.environ


class Model:
    def __init__(self, hidden: int = 1, layers: tuple[int, ...] = (), names: dict[str, float] | None = None) -> None:
        self.hidden = hidden

    def method(self) -> None: ...


class Plugin(pydantic.BaseModel):
    entry: pydantic.ImportString | None = None


def train(
    model: Model | None = None,
    rate: float = 0.1,
    steps: int = 1,
    label: str = "",
    entry: pydantic.ImportString | None = None,
    plugin: Plugin | None = None,
) -> None: ...


def evaluate(code: object = None) -> None:
    """Must never be called by a reader."""
    system("touch executed")
