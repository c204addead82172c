"""Classes of pydantic and attrs, and others whose parameters or hooks are of a special kind."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import pathlib
import typing as t

import annotated_doc
import annotated_types as at
import attrs
import pydantic
import typing_extensions as te
from config_targets import Color


class M(pydantic.BaseModel):
    x: int = pydantic.Field(gt=0, description="Ex.")
    tags: list[str] = pydantic.Field(default_factory=list)
    al: float = pydantic.Field(1.0, alias="theAl")

    @pydantic.model_validator(mode="after")
    def small(self):
        if self.x > 10:
            raise ValueError("too big")
        return self


class Outer(pydantic.BaseModel):
    m: M
    url: pydantic.HttpUrl | None = None


@attrs.define
class A:
    x: int
    _y: list[int] = attrs.Factory(list)


class Kw(t.TypedDict):
    a: int
    b: te.NotRequired[str]


def fkw(x: int, **kw: te.Unpack[Kw]):
    return x, kw


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class D:
    x: dataclasses.InitVar[int]
    c: t.ClassVar[int] = 3
    me: t.Self | None = None

    def __post_init__(self, x):
        pass


class Plain:
    def __init__(self, n: int = 0):
        pass

    @staticmethod
    def validate(config):
        if config.n < 0:
            raise ValueError("n is below\n zero")


def takes_m(m: M):
    return m


class Aloud:
    def __init__(self, how: str) -> None:
        self.how = how

    @classmethod
    def validate(cls, config):
        print("heard")
        return hooks[config.how]()


def _exit():
    raise SystemExit("stop")


async def _later():
    return None


hooks = {"exit": _exit, "later": _later, "false": lambda: False, "key": lambda: {}["absent"], "good": lambda: None}


class Trainer:
    def validate(self):
        raise AssertionError("an evaluation, and no check of a config")


class Point(t.NamedTuple):
    x: int


class Node(te.TypedDict):
    children: list[Node]


def takes_any(value: t.Any = None, on: t.Callable[[int], str] = str, node: Node | None = None) -> t.Any:
    return value


@dataclasses.dataclass
class Fields:
    gap: dt.timedelta = dt.timedelta(days=1, seconds=0.5)
    """Between two steps."""
    cost: decimal.Decimal = decimal.Decimal("1.50")
    maybe: decimal.Decimal | None = None
    colors: list[Color] = dataclasses.field(default_factory=list)
    kinds: tuple[t.Literal["a", "b"], ...] = ("a",)
    rate: t.Annotated[float, at.Interval(ge=0, le=1), annotated_doc.Doc("Of all.")] = 0.5
    at_: dt.time = dt.time(1, 2)
    when: dt.datetime | None = None
    names: frozenset[str] = frozenset({"x"})
    folder: pathlib.Path = pathlib.Path("a/b")


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    lr: float = pydantic.Field(0.1, alias="learning_rate")


class OnlyAliased(pydantic.BaseModel):
    lr: float = pydantic.Field(0.1, alias="learning_rate")
