"""Functions and classes that the tests of configs configure."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import enum
import functools
import pathlib
import typing
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from annotated_types import Gt

from nemo_airflow.config import Config
from nemo_airflow.language import configs

if TYPE_CHECKING:
    from somewhere_else import Missing

imported_on_purpose = functools.partial


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Point(NamedTuple):
    x: int
    y: int = 0


class Model:
    """A model.

    Args:
        hidden: Width of the hidden layer.
        activation: Between the layers.
    """

    def __init__(self, hidden: int, activation: Literal["relu", "tanh"] = "relu", dropout: float = 0.0) -> None:
        self.hidden, self.activation, self.dropout = hidden, activation, dropout

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None

    @classmethod
    def small(cls, hidden: int = 2) -> Model:
        return cls(hidden)

    @staticmethod
    def width(model: Model) -> int:
        return model.hidden

    def method(self) -> int:
        return self.hidden


class BigModel(Model):
    """A subclass."""


@dataclasses.dataclass
class Optimizer:
    """An optimizer.

    Attributes:
        lr: Learning rate.
    """

    lr: float = 1e-3
    color: Color = Color.RED
    betas: tuple[float, float] = (0.9, 0.99)
    layers: list[int] = dataclasses.field(default_factory=list)

    def validate(self) -> None:
        if self.lr <= 0:
            raise ValueError("lr must be positive")


@dataclasses.dataclass
class Data:
    path: pathlib.Path = pathlib.Path("/data")
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    seed: int | None = None


@dataclasses.dataclass
class Everything:
    """One field of each kind that a plan can hold."""

    value: Any = None
    other: Any = None


@dataclasses.dataclass(frozen=True, repr=False)
class Silent:
    """Its text has an address."""

    value: int


class Experiment(Config):
    name: str
    lr: float = 1e-3

    def validate(self) -> None:
        if self.lr <= 0:
            raise ValueError("lr must be positive")


class LongExperiment(Experiment):
    epochs: int = 10


def train(
    model: Model,
    optimizer: Optimizer | None = None,
    epochs: int = 1,
    callback: collections.abc.Callable[[int], int] | None = None,
    names: dict[str, list[int]] | None = None,
    start: datetime.date | None = None,
    data: Data | None = None,
) -> dict[str, Any]:
    """Trains.

    Args:
        model: What to train.
        epochs (int): How often,
            over all data.

    Returns:
        Everything.
    """
    return dict(locals())


def numpy_style(alpha: float = 0.5, flag: bool = False) -> None:
    """Does nothing.

    Parameters
    ----------
    alpha : float
        How much.
    flag
        Whether.

    Returns
    -------
    None
    """


def sphinx_style(alpha: float = 0.5) -> None:
    """Does nothing.

    :param float alpha: How much,
        precisely.
    """


def use_experiment(experiment: Experiment, scale: float = 1.0) -> tuple[str, float]:
    return experiment.name, experiment.lr * scale


def identity(value: Any = None) -> Any:
    return value


def make_model(hidden: int = 1) -> Model:
    return Model(hidden)


def make_int() -> int:
    return 3


def positional(a: int, /, b: str = "b", *rest: float, flag: bool = False, **named: int) -> tuple[Any, ...]:
    return a, b, rest, flag, named


def unresolvable(a: Missing, b: int = 0, c: some.nonsense = 1) -> None:  # noqa: F821
    return None


def constrained(rate: Annotated[float, Gt(0)], kinds: set[str] | None = None, size: typing.Union[int, str] = 1) -> None:  # noqa: UP007
    return None


def checked(value: Any) -> Any:
    """Replaced in the tests: has any annotation."""
    return value


def double(x: int) -> int:
    return 2 * x


def counter() -> list[int]:
    return []


def apply(fn: collections.abc.Callable[..., Any], times: int = 2, extra: Any = None) -> list[Any]:
    return [fn() for _ in range(times)]


def collect(item: Any = None, tail: Any = None) -> tuple[Any, Any]:
    return item, tail


def tagged(
    tags: frozenset[str] = frozenset("abcde"), colors: frozenset[Color] = frozenset((Color.RED, Color.BLUE))
) -> None:
    return None


class Level(enum.IntEnum):
    OFF = 0
    ON = 1


class Quality(str, enum.Enum):  # noqa: UP042 - as most code writes it
    NONE = ""
    BEST = "best"


def leveled(level: Level = Level.ON, quality: Quality = Quality.BEST) -> None:
    return None


def nested_for_a_job(levels: int) -> Any:
    config: Any = 1
    for _ in range(levels):
        config = configs.Config(Everything, value=config)
    return config


def nested_in_fiddle(levels: int) -> Any:
    config: Any = 1
    for _ in range(levels):
        config = Config(Everything, value=config)
    return config
