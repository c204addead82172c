"""Right and wrong lines, for mypy and pyright: a line that a checker has to refuse says so at its end.

``check.py`` compares. Nothing here is run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, assert_type

from nemo_airflow import Config, LocalExecutor, NemoRunOperator, Partial, Recipe, Script, params_from
from nemo_airflow.config import apply_overrides, build, to_yaml, validate


@dataclasses.dataclass
class Model:
    hidden: int
    layers: tuple[int, ...] = ()


class Adam:
    def __init__(self, params: list[int], lr: float = 0.1) -> None:
        self.lr = lr

    @classmethod
    def slow(cls, params: list[int]) -> Adam:
        return cls(params, 1e-5)


class Size(NamedTuple):
    width: int
    height: int = 1


@dataclasses.dataclass
class Trainer:
    model: Model
    optimizer: Callable[[list[int]], Adam]
    epochs: int = 1


def make_model(width: int = 3) -> Model:
    return Model(width)


def rate(base: float) -> float:
    return base / 2


def train(
    model: Model, optimizer: Callable[[list[int]], Adam], epochs: int = 1, data: Path | None = None, rate: float = 0.1
) -> dict[str, float]:
    return {}


def small(hidden: int = 64) -> Partial:
    return Partial(train, Config(Model, hidden), Partial(Adam))


class Experiment(Config):
    name: str
    lr: float = 0.1

    def validate(self) -> None:
        if self.lr <= 0:
            raise ValueError("lr must be positive")


def describe(experiment: Experiment) -> str:
    return experiment.name


# Right: complete, in part, and empty, to be set later.
config = Config(train, model=Config(Model, hidden=3), optimizer=Partial(Adam, lr=0.2), epochs=2, data=Path("x"))
config.epochs = 3
config.model.hidden = 4
by_position = Config(train, Config(Model, 3), Partial(Adam), 2)
empty = Config(train)
empty.model = Config(Model)
layer = Config(train, optimizer=Partial(Adam.slow))
of_functions = Config(train, Config(make_model, width=4), Partial(Adam), rate=Config(rate, 0.5))
of_a_class = Config(Trainer, model=Config(Model, hidden=3), optimizer=Partial(Adam))
assert_type(of_a_class.model.hidden, int)  # wrong for mypy: there it is Any
of_a_class.model.hidden = 5
of_a_tuple = Config(Size, 3, height=4)
by_name = Config("zoo:train", net=Config("zoo:Net", hidden=128))
of_a_builtin = Config(dict, rate=0.1)
recipe = Recipe(small, ["rate=0.5"], hidden=128)
recipe.hidden = 3
by_text = Recipe("zoo:small", {"net.hidden": 3}, source="folder", hidden=128)
in_an_image = Recipe("zoo:small", in_image=True)
experiment = Config(describe, experiment=Experiment(name="a"))
callback: Callable[[list[int]], Adam] = Partial(Adam, lr=1.0)
model: Model = Config(Model, hidden=3)


def larger(model: Model) -> Model:
    model.hidden *= 2
    return model


larger(Config(Model, hidden=3))
changed = apply_overrides(config, ["epochs=5"])
validate(changed)
result: Any = build(changed)
text: str = to_yaml(of_a_class)
params = params_from(config)
first = NemoRunOperator(task_id="first", config=config, job_executor=LocalExecutor())
second = NemoRunOperator(task_id="second", config=Config(train, data=first.output["data"]))
script = NemoRunOperator(task_id="third", config=Script(inline="true"))

# Wrong: a name, a type, one too many, a nested config of another class.
Config(train, epoch=2)  # wrong
Config(train, Config(Model, 3), Partial(Adam), epochs="2")  # wrong
Config(train, model=Config(Model, hiden=3), optimizer=Partial(Adam))  # wrong
Config(train, model=Config(Model, hidden="3"), optimizer=Partial(Adam))  # wrong
Config(train, model=Config(Adam, [1]), optimizer=Partial(Adam))  # wrong for pyright: mypy takes any config there
Config(Model, hiden=3)  # wrong
Config(Model, hidden="x")  # wrong
Config(Model, 3, (1,), 4)  # wrong
Config(Size, width="x")  # wrong
Config(Adam.slow, paramz=[1])  # wrong
print(of_a_class.model.hiden)  # wrong for pyright: mypy knows no attributes
of_a_class.epochs = "3"  # wrong for pyright: mypy knows no attributes
Partial(Adam, lrr=0.1)  # wrong
Partial(Adam, lr="x")  # wrong
Recipe(small, hiden=1)  # wrong
Recipe(small, hidden="1")  # wrong
Experiment(nam="a")  # wrong for mypy: to pyright a class that fits everywhere has any constructor
Experiment(name=1)  # wrong for mypy: to pyright a class that fits everywhere has any constructor
NemoRunOperator(task_id="fourth", config=config, job_executer=LocalExecutor())  # wrong for nobody: Airflow has kwargs
