"""Targets read from their source: code whose libraries are not here is typed, documented, and never imported."""

import datetime
import enum
import importlib
import sys
import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from nemo_airflow import Config
from nemo_airflow.config import plan as plans
from nemo_airflow.config import validate
from nemo_airflow.config.objects.buildable import known_default
from nemo_airflow.config.source import Source, target_from_source
from nemo_airflow.config.types.docstrings import parameter_help
from nemo_airflow.config.types.parameters import parameters_of
from nemo_airflow.config.views.form import form_fields
from nemo_airflow.exceptions import (
    MissingParameterError,
    ParameterTypeError,
    TargetNotImportableError,
    UnknownParameterError,
)

ZOO = {
    "zoo/__init__.py": "from zoo.nets import Net as Network\nfrom .nets import *\nimport absent_library\n",
    "zoo/nets.py": '''
        """Networks."""
        from __future__ import annotations

        import enum
        import datetime as dt
        from dataclasses import KW_ONLY, dataclass, field
        from decimal import Decimal
        from pathlib import Path
        from typing import TYPE_CHECKING, Annotated, Any, Callable, ClassVar, Literal, Optional, Union

        import absent_library
        import attrs
        from absent_library import Module
        from annotated_types import Gt
        from pydantic import BaseModel, Field

        from zoo import sizes
        from zoo.sizes import WIDTH, Size

        if TYPE_CHECKING:
            from absent_library import Tensor

        RATE = 3e-4 * 2
        raise RuntimeError("this module is not to be run")


        class Act(str, enum.Enum):
            """Non-linearity."""

            RELU = "relu"
            GELU = enum.auto()


        class Level(enum.IntEnum):
            LOW = 1
            HIGH = 2


        @dataclass
        class Optim:
            """How to step.

            Attributes:
                lr: Learning rate.
            """

            lr: float = RATE
            betas: tuple[float, float] = (0.9, 0.999)
            extra: dict[str, int] = field(default_factory=dict)
            made: list[int] = field(default_factory=lambda: [1])
            known: ClassVar[int] = 3
            state: int = field(default=0, init=False)
            _: KW_ONLY
            name: str = "adam"


        @dataclass
        class Warm(Optim):
            steps: int = 10


        class Model(BaseModel):
            depth: int = Field(2, ge=1)
            width: int


        @attrs.define
        class Sized:
            size: int
            more: list[int] = attrs.field(factory=list)


        class Net(Module):
            """A network.

            Args:
                hidden: Width of a layer.
            """

            def __init__(
                self, hidden: int = WIDTH, act: Act = Act.RELU, kind: Literal["a", "b"] = "a", *, size: Size = 3
            ):
                pass

            @classmethod
            def small(cls, scale: int = 1) -> Net: ...


        class Bare(Module):
            pass


        class Tree:
            def __init__(self, below: list[Tree] | None = None, name: str = ""): ...


        def train(
            net: Net,
            /,
            optim: Optional[Optim] = None,
            *more: int,
            until: dt.date = dt.date(2026, 1, 2),
            data: Path | None = None,
            share: Decimal = Decimal("0.5"),
            weights: "Tensor" = None,
            act: Act = Act.GELU,
            rate: Annotated[float, Gt(0)] = sizes.RATE,
            loss: Callable[[Any], float] = absent_library.loss,
            **options: int,
        ) -> dict[str, float]:
            """Trains.

            Args:
                net: What to train.
                rate: How fast.
            """
    ''',
    "zoo/sizes.py": "from typing import Union\nSize = Union[int, tuple[int, int]]\nWIDTH = 2 ** 5 * 2\nRATE = 0.1\n",
    "zoo/broken.py": "def f(:\n",
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    for name, text in ZOO.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    yield Source([folder])
    assert not [name for name in sys.modules if name.split(".")[0] in ("zoo", "absent_library")]


def annotations(target):
    return {name: parameter.annotation for name, parameter in parameters_of(target).by_name.items()}


def test_a_function_has_its_types_and_defaults(zoo):
    train = target_from_source("zoo.nets:train", zoo)
    found = annotations(train)
    assert found["until"] is datetime.date
    assert found["data"] == Path | None
    assert found["share"] is Decimal
    assert found["weights"] is Any
    assert found["options"] is int
    assert found["more"] is int
    assert found["rate"] == Annotated[float, found["rate"].__metadata__[0]]
    defaults = {name: p.default for name, p in parameters_of(train).by_name.items()}
    assert defaults["until"] == datetime.date(2026, 1, 2)
    assert defaults["share"] == Decimal("0.5")
    assert defaults["rate"] == 0.1
    assert parameters_of(train).by_name["loss"].is_required is False
    assert parameter_help(train) == {"net": "What to train.", "rate": "How fast."}


def test_classes_have_the_parameters_of_their_constructor(zoo):
    net = annotations(target_from_source("zoo.nets:Net", zoo))
    assert net["hidden"] is int
    assert net["kind"] == Literal["a", "b"]
    assert net["size"] == int | tuple[int, int]
    assert issubclass(net["act"], enum.Enum)
    assert list(net["act"].__members__) == ["RELU", "GELU"]
    small = parameters_of(target_from_source("zoo.nets:Net.small", zoo))
    assert small.names == ["scale"]
    assert parameters_of(target_from_source("zoo.nets:Bare", zoo)).find("whatever").annotation is Any
    assert parameters_of(target_from_source("zoo.nets:Tree", zoo)).names == ["below", "name"]
    model = parameters_of(target_from_source("zoo.nets:Model", zoo))
    assert model.by_name["depth"].default == 2
    assert model.by_name["width"].is_required
    sized = parameters_of(target_from_source("zoo.nets:Sized", zoo))
    assert sized.by_name["size"].is_required
    assert known_default(sized.by_name["more"]) == []


def test_dataclasses_have_their_fields_and_those_of_their_bases(zoo):
    warm = parameters_of(target_from_source("zoo.nets:Warm", zoo))
    assert warm.names == ["lr", "betas", "extra", "made", "steps", "name"]
    assert warm.by_name["lr"].default == 3e-4 * 2
    assert known_default(warm.by_name["extra"]) == {}
    assert not warm.by_name["made"].is_required


MODELS = """
    from __future__ import annotations
    import attr, attrs, dataclasses
    from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

    @attrs.define
    class Attrs:
        _x: int
        __z: int = 3
        y: float = attrs.field(default=1.0, alias="why")
    @attrs.define
    class Derived(Attrs):
        _w: int = 2
    @attr.s(auto_attribs=True)
    class Older:
        _x: int = attr.ib(default=2)
    @dataclasses.dataclass
    class Plain:
        _x: int = 1
    class Aliases(BaseModel):
        x: int = Field(alias="ex", description="How many.")
        y: int = Field(2, validation_alias="why")
        z: int = Field(3, alias="not-a-name")
        _private: int = 3
        _other: int = PrivateAttr(2)
    class Both(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        lr: float = Field(0.1, alias="learning_rate")
    class Below(Both):
        n: int = Field(..., alias="count")
    class ByKeyword(BaseModel, validate_by_name=True):
        n: int = Field(1, alias="count")
    class Open(BaseModel):
        model_config = {"extra": "allow"}
        n: int = 1
"""


def test_fields_are_given_by_the_names_that_the_class_itself_takes(tmp_path, monkeypatch):
    (tmp_path / "fielded.py").write_text(textwrap.dedent(MODELS))
    names = ("Attrs", "Derived", "Older", "Plain", "Aliases", "Both", "Below", "ByKeyword", "Open")
    read = [target_from_source(f"fielded:{name}", Source([tmp_path])) for name in names]
    assert "fielded" not in sys.modules
    monkeypatch.syspath_prepend(tmp_path)
    imported = importlib.import_module("fielded")
    del sys.modules["fielded"]
    for target in read:
        found, own = parameters_of(target), parameters_of(getattr(imported, target.__name__))
        assert (found.names, found.other_names) == (own.names, own.other_names)
        for one, other in zip(found.by_name.values(), own.by_name.values(), strict=True):
            assert (one.kind, one.is_required) == (other.kind, other.is_required)
    assert parameter_help(read[4]) == {"ex": "How many."}


def test_a_config_by_name_is_checked_without_an_import(zoo):
    net = Config(target_from_source("zoo:Network", zoo), hidden=8)
    with pytest.raises(ParameterTypeError, match=r"Net.hidden: expected int, got 'x'"):
        net.hidden = "x"
    with pytest.raises(UnknownParameterError, match="did you mean 'hidden'"):
        net.hiden = 1
    train = target_from_source("zoo.nets:train", zoo)
    with pytest.raises(ParameterTypeError, match="rate: input should be greater than 0, got -1"):
        Config(train, net, rate=-1)
    with pytest.raises(ParameterTypeError, match=r"train\.optim: expected Optim, got Config"):
        Config(train, net, optim=net)
    with pytest.raises(MissingParameterError):
        validate(Config(train))
    optim = Config(target_from_source("zoo.nets:Warm", zoo), steps=3)
    config = Config(train, net, optim=optim, act=annotations(train)["act"].RELU)
    validate(config)
    plan = plans.to_plan(config)
    assert plans.targets(plan) == ("zoo.nets:Act", "zoo.nets:Net", "zoo.nets:Warm", "zoo.nets:train")
    assert plans.flatten(plan)["optim.lr"] == str(3e-4 * 2)
    assert "loss" not in plan["root"]
    assert plans.flatten(plan)["act"] == "RELU"


def test_a_form_is_made_of_it(zoo):
    fields = form_fields(Config(target_from_source("zoo.nets:train", zoo)))
    assert fields["act"].schema["enum"] == ["RELU", "GELU"]
    assert fields["rate"].description == "How fast."
    assert fields["until"].default == "2026-01-02"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zoo.nets:tran", "module 'zoo.nets' has no 'tran'; did you mean 'train'?"),
        ("zoo.netz:train", "no module 'zoo.netz' under"),
        ("zoo.nets:WIDTH", "zoo.nets:WIDTH is a value, not a function or class, so a job cannot call it"),
        ("zoo.nets:Tensor", "has no source here: name the module that defines it"),
        ("zoo.nets", "is not of the form 'package.module:name'"),
        ("zoo.broken:f", "line 1 cannot be read"),
        ("zoo.nets:Net.__init__", "has a part in double underscores"),
        ("..zoo:Net", "is not of the form"),
    ],
)
def test_what_is_not_there_is_named(zoo, name, message):
    with pytest.raises(TargetNotImportableError) as caught:
        target_from_source(name, zoo)
    assert message in str(caught.value)


def test_a_changed_file_is_read_again(tmp_path):
    file = tmp_path / "changing.py"
    file.write_text("def f(a: int = 1): ...\n")
    source = Source([tmp_path])
    first = target_from_source("changing:f", source)
    assert parameters_of(first).names == ["a"]
    assert target_from_source("changing:f", source) == first
    file.write_text("def f(a: int = 1, b: str = ''): ...\n")
    assert parameters_of(target_from_source("changing:f", source)).names == ["a", "b"]


@pytest.mark.parametrize(
    "default",
    [
        "__import__('os').system('true')",
        "open('/etc/passwd')",
        "[].append(1)",
        "9 ** 9 ** 9",
        "'x' * 10 ** 9",
        "x",
        "1 / 0",
    ],
)
def test_a_default_is_never_run(tmp_path, default):
    (tmp_path / "sly.py").write_text(f"def f(a={default}): ...\n")
    parameter = parameters_of(target_from_source("sly:f", Source([tmp_path]))).by_name["a"]
    assert not parameter.is_required
    assert repr(parameter.factory) == "<set by the code>"
