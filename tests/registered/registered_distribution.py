"""An installed distribution that registers recipes and executors."""

import sys
import textwrap

import pytest

RECIPES = '''
"""Recipes of a zoo."""

from __future__ import annotations

from nemo_airflow import Config, Partial
from zoo.nets import Adam, Net, train


def small(hidden: int = 8, lr: float = 1e-3) -> Partial:
    """A small training.

    Args:
        hidden: Width.
    """
    return Partial(train, net=Config(Net, hidden=hidden), optimizer=Config(Adam, lr=lr))


def adam(lr: float = 0.5):
    """Adam as we like it."""
    return Config(Adam, lr=lr, betas=(0.9, 0.95))


def tuned(lr: float = 0.5) -> Config:
    """Adam as others like it."""
    return Config(Adam, lr=lr)


large = Config(train, net=Config(Net, hidden=1024), optimizer=Config(Adam))
"""A large training."""


def number() -> int:
    return 3


def failing() -> Config:
    raise RuntimeError("no luck\\ntoday")
'''

NETS = """
from __future__ import annotations

import dataclasses


class Net:
    def __init__(self, hidden: int, act: str = "relu") -> None:
        self.hidden, self.act = hidden, act


class WideNet(Net):
    pass


class Optimizer:
    pass


@dataclasses.dataclass
class Adam(Optimizer):
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)


@dataclasses.dataclass
class SGD(Optimizer):
    lr: float = 0.1
    momentum: float = 0.0


def train(net: Net, optimizer: Optimizer, epochs: int = 1, names: dict[str, int] | None = None) -> dict:
    return {"hidden": net.hidden, "lr": optimizer.lr, "epochs": epochs}
"""

HEAVY = '''
from __future__ import annotations

import torchlike
from nemo_airflow import Config
from zoo.nets import Adam, Net, train


def heavy(hidden: int = 2) -> Config:
    """Needs a library that is not here."""
    return Config(train, net=Config(Net, hidden=hidden), optimizer=Config(Adam))
'''

EXECUTORS = '''
from nemo_airflow import Config, LocalExecutor

cluster = LocalExecutor(grace=7.0)
"""The usual place."""

as_config = Config(LocalExecutor, grace=8.0)


def patient(grace: float = 9.0) -> LocalExecutor:
    """Waits for long."""
    return LocalExecutor(grace=grace)


def nothing() -> int:
    return 3
'''

ENTRY_POINTS = """
[nemo_airflow.recipes]
small = zoo.recipes:small
large = zoo.recipes:large
adam = zoo.recipes:adam
tuned = zoo.recipes:tuned
heavy = zoo.heavy:heavy
number = zoo.recipes:number
failing = zoo.recipes:failing
gone = zoo.gone:x
typo = zoo.recipes:smal
module = zoo.recipes
syntax = zoo.wrong:x

[nemo_airflow.named_executors]
cluster = zoo.executors:cluster
as-config = zoo.executors:as_config
patient = zoo.executors:patient
nothing = zoo.executors:nothing
lost = zoo.executors:lost
"""


def install(folder, name, entry_points):
    """Lays an installed distribution into a folder, as an installer does."""
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """The folder where the distribution is installed, on Python's path in this process and in those it starts."""
    folder = tmp_path / "site"
    install(folder, "zoo", ENTRY_POINTS)
    package = folder / "zoo"
    package.mkdir()
    files = {"__init__": "", "recipes": RECIPES, "nets": NETS, "heavy": HEAVY, "executors": EXECUTORS, "wrong": "x ="}
    for module, text in files.items():
        (package / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    yield folder
    for module in [module for module in sys.modules if module.partition(".")[0] == "zoo"]:
        del sys.modules[module]
