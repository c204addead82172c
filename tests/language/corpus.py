"""Overrides of every kind, and the functions whose arguments they set: the same corpus for both sides of a job."""

# ruff: noqa: E501 - tables

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import os
import pathlib
import typing
import uuid

import annotated_types
import pydantic


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Level(enum.IntEnum):
    OFF = 0
    ON = 1


@dataclasses.dataclass
class Optim:
    lr: float = 0.1
    name: str = "adam"
    betas: tuple[float, float] = (0.9, 0.99)
    below: typing.Optional["Optim"] = None


class Point(typing.NamedTuple):
    x: int
    y: float = 1.0


@dataclasses.dataclass
class Holder:
    held: typing.Any
    made: int = 0

    def __post_init__(self):
        self.made += 1


def hand_on(x=None, _=None, **others):
    return x, _, others


def make_config():
    from nemo_airflow.language.configs import Config

    return Config(hand_on)


ANNOTATIONS = {
    "any": typing.Any,
    "bool": bool,
    "bounded": typing.Annotated[int, annotated_types.Gt(0), annotated_types.Le(10)],
    "bytes": bytes,
    "callable": collections.abc.Callable[[int], int],
    "color": Color,
    "complex": complex,
    "date": datetime.date,
    "datetime": datetime.datetime,
    "decimal": decimal.Decimal,
    "dict": dict[str, int],
    "dict_of_lists": dict[str, list[int]],
    "floats": list[float],
    "even": typing.Annotated[int, annotated_types.Predicate(lambda number: number % 2 == 0)],
    "float": float,
    "fractions": dict[str, list[typing.Annotated[float, annotated_types.Interval(ge=0.0, lt=1.5)]]],
    "frozen": frozenset[str],
    "int": int,
    "int_or_text": int | str,
    "ints": list[int],
    "level": Level,
    "literal": typing.Literal["a", 1, True],
    "mapping": collections.abc.Mapping[int, float],
    "maybe_color": Color | None,
    "maybe_floats": list[float] | None,
    "maybe_int": typing.Optional[int],  # noqa: UP045 - the old form is meant
    "maybe_text": str | None,
    "numbers": int | float,
    "optim": Optim,
    "pair": tuple[int, float],
    "path": pathlib.Path,
    "path_like": os.PathLike,
    "path_or_text": pathlib.Path | str,
    "point": Point,
    "sequence": collections.abc.Sequence[float],
    "set": set[int],
    "short": typing.Annotated[list[int], annotated_types.Len(1, 2)] | None,
    "short_texts": list[typing.Annotated[str, pydantic.Field(min_length=2, pattern="^[a-z1]+$")]],
    "text": str,
    "texts": list[str],
    "time": datetime.time,
    "timedelta": datetime.timedelta,
    "texts_or_ints": list[str] | list[int],
    "tuple": tuple[int, ...],
    "uuid": uuid.UUID,
    "value_lists": list[list[float]],
}


def _function(name: str, annotation: object) -> object:
    def take(x):
        return x

    take.__annotations__ = {"x": annotation}
    take.__name__ = take.__qualname__ = f"take_{name}"
    return take


TARGETS = {name: _function(name, annotation) for name, annotation in ANNOTATIONS.items()}
globals().update({target.__name__: target for target in TARGETS.values()})

TEXTS = (
    "3", "-3", "+3", "3.0", "3.5", "1e3", "1E-3", ".5", "0x1f", "0o17", "0b11", "1_000", "1__0", "12345678901234567890",
    "inf", ".nan", "true", "True", "FALSE", "yes", "no", "on", "OFF", "0", "1", "y", "null", "None", "~", "", "a", "a b",
    "abc", "r", "RED", "red", "ON", "/x/y", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02T03:04:05Z", "20260102",
    "2026-01-02 03:04:05.5+01:00", "03:04", "03:04:05.123", "1:30:00", "2 days, 1:00:00", "PT1H", "P1DT2H", "-PT5M", "1.5 s",
    "12345678-1234-5678-1234-567812345678", "1+2j", '"3"', "'true'", '"null"', '"a"', '"[1, 2]"', '"{a: 1}"', "[]", "()", "{}",
    "set()", "[1]", "(1,)", "(1)", "{1}", "[1, 2]", "(1, 2)", "{1, 2}", "[1.10]", "[1, 2.5]", "[a, b]", '["1", "a"]', "[1, a]",
    "[true]", "[1, true]", "[null]", "[[1], [2, 3]]", "[[a]]", "{a: 1}", "{a: x}", "{a: [1]}", "{1: 2}", "{'1': 2}", "{a: null}",
    "[{a: 1}]", "Optim()", "Optim(lr=0.5)", "Optim(lr=x)", "Optim(rate=1)", "corpus:Optim(0.5, sgd)", "[Optim()]", "run(3)",
    "os:system(ls)", "@file.yaml", "{_target_: x}", "a=b", "x: y", "[1", "'a", "{a: 1, a: 2}", "{a}",
)  # fmt: skip

PRESENT = {
    "any": [1, {"b": 2}],
    "bool": True,
    "bounded": 4,
    "bytes": b"a",
    "dict": {"a": 1, "b.c": 2, "3": 3},
    "dict_of_lists": {"a": [1, 2]},
    "floats": [1.0, 2.5],
    "float": 0.5,
    "frozen": frozenset({"a"}),
    "int": 4,
    "ints": [1, 2, 3],
    "maybe_floats": [1.0],
    "maybe_int": None,
    "numbers": 2,
    "pair": (1, 2.0),
    "path": pathlib.Path("/a"),
    "point": Point(1, 2.0),
    "sequence": (1.0, 2.0),
    "set": {1, 2},
    "short": [1],
    "text": "a",
    "texts": ["a", "1"],
    "tuple": (1, 2),
    "value_lists": [[1.0], [2.0]],
}
"""What is there before an override changes it."""

CHANGES = (
    "x+=2", "x+=2.5", "x+=a", "x+='a'", "x+=[2]", "x+=[a]", "x+={5}", "x-=1", "x-={1}", "x*=3", "x*=a", "x/=2", "x/=0",
    "x|={a: 5}", "x|={b: x}", "x|={7}", "x~=", "~x", "x~=1", "x~=a", "x~=[1, 2]", "x~='1'", "x~=zzz", "x.a=5", "x.a=b", "x.a~=",
    'x["b.c"]=7', "x['3']=4", "x[3]=4", "x.3=4", "x.zzz=1", "x.0=9", "x[0]=9", "x.-1=9", "x[-1]=9", "x[99]=1", "x[01]=9", "x[0]~=",
    "x.0~=", "x.0.0=7", "x.0=b", "x.1.b=5", "x.y=2", "x.a.0=8", "x.a.0=b", "x.0.x=1", "x.lr=1", "y=1", "x..a=1", "x[a]=1", ".x=1",
    "x", "=1", "x[0", "x.a+=1", "x.0*=2", "x=[1]", "x+=null", "x+=Optim()",
)  # fmt: skip

UTC = datetime.UTC
READ = {
    "any": {"3": 3, "1e3": 1000.0, "true": True, "null": None, "a b": "a b", '"3"': "3", "[1, a]": [1, "a"], "": ""},
    "bool": {"true": True, "False": False, "yes": True, "off": False, "1": True, "n": False, '"true"': True},
    "bytes": {"ab": b"ab", "3": b"3"},
    "color": {"RED": Color.RED, "r": Color.RED, '"BLUE"': Color.BLUE},
    "complex": {"1+2j": 1 + 2j, "3": 3 + 0j},
    "date": {"2026-01-02": datetime.date(2026, 1, 2)},
    "datetime": {
        "2026-01-02T03:04:05": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "2026-01-02T03:04:05Z": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "2026-01-02": datetime.datetime(2026, 1, 2),
    },
    "decimal": {"1.10": decimal.Decimal("1.10"), "3": decimal.Decimal(3), '"0.1"': decimal.Decimal("0.1")},
    "dict": {"{a: 1}": {"a": 1}, "{}": {}, '"{a: 1}"': {"a": 1}},
    "dict_of_lists": {"{a: [1, 2]}": {"a": [1, 2]}},
    "float": {"1": 1.0, "1e-3": 0.001, ".5": 0.5, "inf": float("inf"), "1_000.5": 1000.5, '"0.5"': 0.5},
    "floats": {"[1, 2.5]": [1.0, 2.5], "(1,)": [1.0]},
    "frozen": {"[a, 1]": frozenset({"a", "1"})},
    "int": {"3": 3, "3.0": 3, "1e3": 1000, "0b11": 3, "0x1f": 31, "1_000": 1000, '"3"': 3},
    "int_or_text": {"3": 3, "1_000": 1000, "3.0": "3.0", "true": "true", '"3"': "3", "a": "a"},
    "ints": {"[1, 2]": [1, 2], "[]": [], '["3"]': [3], '"[1, 2]"': [1, 2]},
    "level": {"OFF": Level.OFF, "ON": Level.ON, "1": Level.ON, "0": Level.OFF},
    "literal": {"a": "a", "1": 1, "true": True},
    "mapping": {"{1: 2}": {1: 2.0}},
    "maybe_color": {"null": None, "RED": Color.RED},
    "maybe_floats": {"null": None, "[1]": [1.0]},
    "maybe_int": {"null": None, "None": None, "3": 3, '"null"': None},
    "maybe_text": {"null": None, "a": "a", "3": "3", '"null"': "null"},
    "numbers": {"1": 1, "1.0": 1.0, "1e3": 1000.0},
    "pair": {"(1, 2)": (1, 2.0), "[1, 2.5]": (1, 2.5)},
    "path": {
        "/x/y": pathlib.Path("/x/y"),
        "a b": pathlib.Path("a b"),
        "3": pathlib.Path("3"),
        "true": pathlib.Path("true"),
    },
    "path_like": {"/x": pathlib.Path("/x")},
    "path_or_text": {"/x": "/x"},
    "point": {"(1, 2)": Point(1, 2.0), "[1]": Point(1)},
    "sequence": {"(1, 2)": (1.0, 2.0), "[1, 2]": [1.0, 2.0]},
    "set": {"{1, 2}": {1, 2}, "[1, 1]": {1}},
    "text": {
        "3": "3",
        "true": "true",
        "null": "null",
        "[1]": "[1]",
        "run(3)": "run(3)",
        '"a"': "a",
        "a=b": "a=b",
        "1.10": "1.10",
    },
    "texts": {"[1.10, a]": ["1.10", "a"], "[3]": ["3"], "[true]": ["true"]},
    "texts_or_ints": {"[1, 2]": [1, 2], "[1, a]": ["1", "a"]},
    "time": {"03:04": datetime.time(3, 4)},
    "timedelta": {
        "1:30:00": datetime.timedelta(hours=1, minutes=30),
        "2 days, 1:00:00": datetime.timedelta(days=2, hours=1),
        "PT1H": datetime.timedelta(hours=1),
        "-PT5M": -datetime.timedelta(minutes=5),
        "1.5": datetime.timedelta(seconds=1.5),
    },
    "tuple": {"[1, 2]": (1, 2), "()": ()},
    "uuid": {"12345678-1234-5678-1234-567812345678": uuid.UUID("12345678-1234-5678-1234-567812345678")},
    "value_lists": {"[[1], [2, 3]]": [[1.0], [2.0, 3.0]]},
}
"""What texts mean, by the names of annotations."""

REFUSED = {
    "bool": ("3", "2.0", "null", "maybe"),
    "callable": ("3", "a", "Optim()"),
    "color": ("GREEN", "3", "null"),
    "date": ("5", "20260102", "2026-13-01", "a"),
    "decimal": ("a", "true", "inf"),
    "float": ("true", "a", "null", "[1]"),
    "int": ("true", "1.5", "a", "null", "inf", "[1]"),
    "ints": ("[1, true]", "[a]", "3", "{a: 1}"),
    "dict": ("{a: x}", "[1]"),
    "literal": ("b", "2", "1.0", "[1]"),
    "optim": ("3", "a", "{lr: 1}"),
    "pair": ("[1]", "(1, 2, 3)", "(a, 1)"),
    "timedelta": ("true", "a", "2026-01-02"),
    "uuid": ("a", "3"),
}
"""Texts that do not fit."""
