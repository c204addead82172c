"""Annotations of every form, each with values that fit it and values that do not."""

# ruff: noqa: UP006, UP007, UP044 - the old forms are meant

import collections
import collections.abc as cabc
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import ipaddress
import os
import pathlib
import re
import typing as t
import uuid

import annotated_types as at
import attrs
import pydantic
import typing_extensions as te

T = t.TypeVar("T")
B = t.TypeVar("B", bound=int)
C = t.TypeVar("C", int, str)
P = t.ParamSpec("P")


class Box(t.Generic[T]):
    def __init__(self, item: T):
        self.item = item


class Total(te.TypedDict):
    a: int
    b: te.NotRequired[str]


class Partial_(te.TypedDict, total=False):
    a: te.Required[int]
    b: Total


class RO(te.TypedDict):
    a: te.ReadOnly[int]


class GTD(te.TypedDict, t.Generic[T]):
    a: T


class Extra(te.TypedDict, extra_items=int):
    a: str


class NT(t.NamedTuple):
    x: int
    y: str = "a"


@dataclasses.dataclass(frozen=True, slots=True)
class DC:
    x: int


@dataclasses.dataclass
class GDC(t.Generic[T]):
    x: T


class M(pydantic.BaseModel):
    x: int


class RM(pydantic.RootModel[list[int]]):
    pass


class GM(pydantic.BaseModel, t.Generic[T]):
    x: T


@attrs.define
class AT:
    x: int


@pydantic.dataclasses.dataclass
class PDC:
    x: int


class E(enum.Enum):
    A = 1
    B = 2


class IE(enum.IntEnum):
    A = 1


class SE(enum.StrEnum):
    A = "a"


class F(enum.Flag):
    A = 1
    B = 2


class IF(enum.IntFlag):
    A = 1
    B = 2


class Proto(t.Protocol):
    def go(self, x: int) -> str: ...


@t.runtime_checkable
class RProto(t.Protocol):
    def go(self, x: int) -> str: ...


class DataProto(t.Protocol):
    size: int


class CallProto(t.Protocol):
    def __call__(self, x: int) -> str: ...


class Goes:
    size = 1

    def go(self, x: int) -> str:
        return ""


def f0(): ...
def f1(x: int) -> str: ...
def f2(x, y): ...
def fv(*a): ...


U = t.NewType("U", int)
UL = t.NewType("UL", list[int])
Al = te.TypeAliasType("Al", list[int])
GA = te.TypeAliasType("GA", dict[str, T], type_params=(T,))
Rec = te.TypeAliasType("Rec", "int | list[Rec]")


class Cat(pydantic.BaseModel):
    kind: t.Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: t.Literal["dog"]


ROWS = [
    (cabc.Callable[[int], str], [f1, fv, len, int], [f0, f2, 1]),
    (t.Callable[..., int], [f0, f2], [1]),
    (cabc.Callable[[], int], [f0, fv], [f1]),
    (t.Callable[t.Concatenate[int, P], int], [f1, f2, fv], [f0]),
    (t.Callable[P, int], [f1, f0], [1]),
    (Box, [Box(1)], [1]),
    (Box[int], [Box(1)], [1]),
    (B, [1], ["a"]),
    (C, [1, "a"], [1.0]),
    (Total, [{"a": 1}, {"a": 1, "b": "x"}], [{"a": "x"}, {}, {"a": 1, "c": 1}, []]),
    (Partial_, [{"a": 1}, {"a": 1, "b": {"a": 1}}], [{"b": {"a": 1}}, {"a": 1, "b": {"a": "1"}}]),
    (RO, [{"a": 1}], [{"a": "1"}]),
    (GTD[int], [{"a": 1}], [{"a": "1"}, {}]),
    (GTD, [{"a": 1}], [{}]),
    (Extra, [{"a": "x", "z": 1}], [{"a": "x", "z": "1"}]),
    (NT, [NT(1), NT(1, "b")], [(1, "a"), {"x": 1}]),
    (list[NT], [[NT(1)]], [[(1, "a")]]),
    (DC, [DC(1)], [{"x": 1}, 1]),
    (GDC[int], [GDC(1)], [1]),
    (M, [M(x=1)], [{"x": 1}, 1]),
    (RM, [RM([1])], [[1]]),
    (GM[int], [GM[int](x=1)], [1]),
    (GM, [GM(x=1)], [1]),
    (AT, [AT(1)], [{"x": 1}]),
    (PDC, [PDC(1)], [{"x": 1}]),
    (E, [E.A], [1, "A"]),
    (IE, [IE.A], [1]),
    (SE, [SE.A], ["a"]),
    (F, [F.A, F.A | F.B], [1]),
    (IF, [IF.A, IF.A | IF.B], [1]),
    (Proto, [Goes()], [1]),
    (RProto, [Goes()], [1]),
    (DataProto, [Goes()], [1]),
    (CallProto, [f1], [1]),
    (U, [1], ["1"]),
    (UL, [[1]], [["1"]]),
    (Al, [[1]], [["1"]]),
    (GA[int], [{"a": 1}], [{"a": "1"}, 1]),
    (GA, [{"a": 1}], [1]),
    (Rec, [1, [1, [2]]], ["1", [["x"]]]),
    (t.Union[Cat, Dog], [Cat(kind="cat")], [{"kind": "cat"}]),
    (t.Annotated[t.Union[Cat, Dog], pydantic.Field(discriminator="kind")], [Cat(kind="cat")], [{"kind": "cat"}, 3]),
    (list[int], [[1]], [["1"], (1,)]),
    (dict[str, int], [{"a": 1}], [{"a": "1"}, {1: 1}]),
    (tuple[int, str], [(1, "a")], [("1", "a"), (1,)]),
    (tuple[()], [()], [(1,)]),
    (tuple[int, te.Unpack[tuple[str, ...]]], [(1, "a", "b")], [("a",), (1, 2)]),
    (frozenset[int], [frozenset([1])], [{1}, frozenset(["a"])]),
    (collections.deque[int], [collections.deque([1])], [[1], collections.deque(["a"])]),
    (collections.deque, [collections.deque([1])], [[1]]),
    (
        collections.defaultdict[str, int],
        [collections.defaultdict(int, a=1)],
        [{"a": 1}, collections.defaultdict(int, a="1")],
    ),
    (collections.OrderedDict[str, int], [collections.OrderedDict(a=1)], [{"a": 1}, collections.OrderedDict(a="1")]),
    (collections.Counter[str], [collections.Counter("aa")], [{"a": 1}, collections.Counter([1])]),
    (collections.ChainMap[str, int], [collections.ChainMap({"a": 1})], [1]),
    (cabc.Mapping[str, int], [{"a": 1}, collections.OrderedDict(a=1)], [{"a": "1"}, 1]),
    (cabc.MutableMapping[str, int], [{"a": 1}], [{"a": "1"}, 1]),
    (cabc.Sequence[int], [[1], (1,), range(3), collections.deque([1])], ["1", ["1"]]),
    (cabc.MutableSequence[int], [[1]], [(1,), ["1"]]),
    (cabc.Set[int], [{1}, frozenset([1])], [[1], {"1"}]),
    (cabc.MutableSet[int], [{1}], [{"1"}, frozenset([1])]),
    (cabc.Iterable[int], [[1], range(3)], [["a"], 1]),
    (cabc.Collection[int], [[1]], [["a"]]),
    (cabc.Iterator[int], [iter([1])], [1]),
    (cabc.Generator[int, None, None], [(i for i in [1])], [1]),
    (cabc.Hashable, [1, "a"], [[1]]),
    (cabc.Sized, ["a", [1]], [1]),
    (cabc.Buffer if hasattr(cabc, "Buffer") else te.Buffer, [b"a"], ["a"]),
    (str, ["a"], [1]),
    (t.AnyStr, ["a", b"a"], [1]),
    (t.Sequence, [[1], (1,)], [1]),
    (t.Annotated[int, at.Ge(0)], [0], [-1, "1"]),
    (t.Annotated[int, at.Gt(0)] | None, [None, 1], [0]),
    (t.Annotated[list[int], at.Len(1, 2)], [[1]], [[], ["1"]]),
    (list[t.Annotated[int, at.Ge(0)]], [[0]], [[-1]]),
    (t.Annotated[str, pydantic.StringConstraints(pattern="^a")], ["a"], ["b", 1]),
    (t.Annotated[int, at.MultipleOf(3)], [3], [4]),
    (t.Annotated[int, at.Predicate(lambda v: v % 2 == 0)], [2], [3]),
    (t.Annotated[int, pydantic.Field(gt=2)], [3], [1]),
    (t.Annotated[str, at.Timezone(None)], [], [1]),
    (t.Annotated[int, pydantic.AfterValidator(lambda v: (_ for _ in ()).throw(ValueError("no")))], [], [1]),
    (pydantic.PositiveInt, [1], [0]),
    (pydantic.conint(gt=1), [2], [1]),
    (t.Annotated[float, at.Interval(ge=0, le=1)], [0.5, 0, 1], [2.0]),
    (t.Literal[1], [1], [True, "1", 1.0]),
    (t.Literal[True], [True], [1]),
    (t.Literal[None, "a"], [None, "a"], ["b"]),
    (t.Literal[E.A], [E.A], [E.B, 1]),
    (t.Literal[b"a"], [b"a"], ["a"]),
    (t.Literal[1, 2, 3], [1, 3], [4]),
    (t.Literal[0, False], [0, False], [True]),
    (pathlib.Path, [pathlib.Path("a")], ["a"]),
    (pathlib.PurePath, [pathlib.Path("a"), pathlib.PurePosixPath("a")], ["a"]),
    (pathlib.PurePosixPath, [pathlib.PurePosixPath("a")], ["a"]),
    (os.PathLike, [pathlib.Path("a")], ["a"]),
    (os.PathLike[str], [pathlib.Path("a")], ["a"]),
    (str | os.PathLike[str], ["a", pathlib.Path("a")], [1]),
    (dt.datetime, [dt.datetime(2026, 1, 1)], ["2026-01-01", dt.date(2026, 1, 1)]),
    (dt.date, [dt.date(2026, 1, 1)], ["x"]),
    (dt.time, [dt.time(1)], ["1"]),
    (dt.timedelta, [dt.timedelta(1)], [1]),
    (dt.timezone, [dt.UTC], [1]),
    (dt.tzinfo, [dt.UTC], [1]),
    (decimal.Decimal, [decimal.Decimal(1)], ["1", 1, 1.0]),
    (fractions.Fraction, [fractions.Fraction(1, 2)], ["1", 1]),
    (uuid.UUID, [uuid.uuid4()], ["a"]),
    (bytes, [b"a"], ["a"]),
    (bytearray, [bytearray(b"a")], [b"a"]),
    (complex, [1j], ["1"]),
    (complex, [1, 1.0], []),
    (range, [range(3)], [[1]]),
    (slice, [slice(1)], [1]),
    (re.Pattern, [re.compile("a")], ["a"]),
    (re.Pattern[str], [re.compile("a")], ["a", re.compile(b"a")]),
    (ipaddress.IPv4Address, [ipaddress.IPv4Address("1.1.1.1")], ["1.1.1.1"]),
    (type[int], [int, bool], [str, 1]),
    (type, [int], [1]),
    (t.Type[B], [int], [str]),
    (type[int | str], [int, str], [float]),
    (type[t.Any], [int], [1]),
    (t.Never, [], [1, None]),
    (t.NoReturn, [], [1]),
    (t.Self, [1], []),
    (te.LiteralString, ["a"], [1]),
    (t.ClassVar[int], [1], ["1"]),
    (t.Final[int], [1], ["1"]),
    (None, [None], [1]),
    (int, [1], [True, "1", 1.0]),
    (float, [1, 1.0], [True, "1"]),
    (bool, [True], [1, "true"]),
    (str, ["a"], [1, b"a"]),
    (functools.partial, [functools.partial(f1)], [f1]),
    (
        list["Box"],
        [
            [Box(1)],
        ],
        [],
    ),
    (t.Optional["Box"], [Box(1)], []),
    (dataclasses.InitVar[int], [1], ["1"]),
    (te.TypeIs[int], [True], []),
    (t.TypeGuard[int], [True], []),
    (pydantic.Json, ["1"], []),
    (pydantic.SecretStr, [pydantic.SecretStr("a")], ["a"]),
    (pydantic.FilePath, [], []),
    (pydantic.HttpUrl, [], ["x"]),
    (tuple, [(1,)], [[1]]),
    (list, [[1]], [(1,)]),
    (dict, [{}], [1]),
    (set, [{1}], [[1]]),
    (t.List, [[1]], [1]),
    (t.Dict[str, t.Any], [{"a": 1}], [{1: 1}]),
    (t.IO[str], [], []),
    (t.SupportsInt, [1], [[]]),
    (t.SupportsFloat, [1.0], [[]]),
    (list[list[int] | None], [[[1], None]], [[["a"]]]),
    (dict[str, list[tuple[int, ...]]], [{"a": [(1,)]}], [{"a": [("x",)]}]),
]


def _value_of(value):
    return value


def target_of(number):
    """Returns a function whose one parameter has the annotation of that row; a plan can name it."""
    name = f"target_{number}"
    if name not in globals():
        made = type(_value_of)(_value_of.__code__, globals(), name)
        made.__qualname__, made.__annotations__ = name, {"value": ROWS[number][0]}
        globals()[name] = made
    return globals()[name]
