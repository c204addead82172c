"""Configs as trigger forms: fields, Airflow's params, and a run's params as overrides."""

import datetime
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict
from config_targets import (
    Color,
    Data,
    Experiment,
    Model,
    Optimizer,
    collect,
    constrained,
    double,
    numpy_style,
    sphinx_style,
    train,
)

from nemo_airflow import Config, Partial, Recipe
from nemo_airflow.config import apply_overrides, form_fields, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import ConfigError, OverrideError
from nemo_airflow.operators.params import overrides_from, params_from


def of_everything(
    flag: bool = False,
    count: int = 1,
    rate: float = 0.5,
    name: str = "n",
    color: Color = Color.RED,
    maybe: int | None = None,
    maybe_color: Color | None = None,
    choice: typing.Literal["a", "b"] = "a",
    number: int | float = 1,
    day: datetime.date = datetime.date(2026, 1, 2),
    when: datetime.datetime = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    naive: datetime.datetime = datetime.datetime(2026, 1, 2),
    at: datetime.time | None = None,
    folder: Path = Path("/x"),
    texts: typing.Iterable[str] = ("a",),
    odd: list[str] = ("a",),
    sizes: typing.Sequence[int] = (1, 2),
    implicit: int = None,  # noqa: RUF013
    untyped=3,
    function: typing.Callable[..., int] = double,
    mapping: dict[str, int] | None = None,
    either: int | str = 1,
    raw: bytes = b"",
    endless: float = float("inf"),
) -> None:
    return None


SHOWN = {"RED": "RED (r)", "BLUE": "BLUE (b)"}
EXPECTED = {
    "flag": (False, {"type": "boolean"}),
    "count": (1, {"type": "integer"}),
    "rate": (0.5, {"type": "number"}),
    "name": ("n", {"type": "string"}),
    "color": ("RED", {"type": "string", "enum": ["RED", "BLUE"], "values_display": SHOWN}),
    "maybe": (None, {"type": ["null", "integer"]}),
    "maybe_color": (None, {"type": ["null", "string"], "enum": [None, "RED", "BLUE"], "values_display": SHOWN}),
    "choice": ("a", {"type": "string", "enum": ["a", "b"]}),
    "number": (1, {"type": "number"}),
    "day": ("2026-01-02", {"type": "string", "format": "date"}),
    "when": ("2026-01-02T00:00:00Z", {"type": "string", "format": "date-time"}),
    "naive": ("2026-01-02T00:00:00", {"type": "string"}),
    "at": (None, {"type": ["null", "string"], "format": "time"}),
    "folder": ("/x", {"type": "string"}),
    "texts": (["a"], {"type": "array", "items": {"type": "string"}}),
    "sizes": ([1, 2], {"type": "array", "items": {"type": "integer"}}),
    "implicit": (None, {"type": ["null", "integer"]}),
    "untyped": (3, {"type": "integer"}),
}


def test_each_kind_of_value_has_its_field_and_what_no_form_shows_has_none():
    fields = form_fields(Config(of_everything))
    assert {name: (field.default, dict(field.schema)) for name, field in fields.items()} == EXPECTED


def test_fields_have_sections_titles_and_help_from_docstrings():
    fields = form_fields(Config(train, model=Config(Model, hidden=3), data=Data()), prefix="train")
    hidden = fields["train.model.hidden"]
    assert (hidden.title, hidden.section, hidden.default) == ("hidden", "model", 3)
    assert hidden.description == "Width of the hidden layer."
    assert fields["train.epochs"].description == "How often, over all data."
    assert fields["train.epochs"].section == ""
    assert fields["train.data.optimizer.lr"].section == "data.optimizer"
    assert fields["train.data.optimizer.lr"].description == "Learning rate."
    assert form_fields(Config(numpy_style))["alpha"].description == "How much."
    assert form_fields(Config(numpy_style))["flag"].description == "Whether."
    assert form_fields(Config(sphinx_style))["alpha"].description == "How much, precisely."


def test_constraints_are_in_the_schema():
    assert form_fields(Config(constrained, rate=1.0))["rate"].schema == {"type": "number", "exclusiveMinimum": 0}


def test_what_comes_from_elsewhere_has_no_field_and_what_is_shared_has_one():
    model = Config(Model, hidden="{{ ds }}", dropout=0.5)
    fields = form_fields(Config(collect, item=[model], tail=model))
    assert set(fields) == {"item.0.activation", "item.0.dropout"}


def test_dicts_and_lists_of_configs_have_fields_for_what_is_in_them():
    fields = form_fields(Partial(collect, item={"a": 1, "b": [Config(Model, 1)]}))
    assert {"item.a", "item.b.0.hidden"} <= set(fields)


def test_a_key_with_a_dot_is_one_title():
    field = form_fields(Config(collect, item={"a.b": 1}))["item['a.b']"]
    assert (field.title, field.section) == ("a.b", "item")


def test_params_are_airflows_and_accept_their_defaults():
    params = params_from(Config(of_everything), prefix="train")
    assert set(params) == {f"train.{name}" for name in EXPECTED} | {"train.overrides"}
    resolved = ParamsDict(params).validate()
    assert resolved["train.color"] == "RED"
    assert resolved["train.overrides"] == {}
    assert isinstance(params["train.count"], Param)
    assert params["train.count"].schema == {"type": "integer", "title": "count", "section": "train"}


def test_parameter_without_a_value_is_asked_for():
    params = params_from(Config(train, model=Config(Model)), prefix="p")
    assert form_fields(Config(Model))["hidden"].required
    assert not params["p.model.hidden"].has_value
    assert params["p.model.hidden"].schema["section"] == "p.model"


@pytest.mark.parametrize(
    "config",
    [
        Config(of_everything),
        Config(train, model=Config(Model, hidden=3), optimizer=Optimizer(), data=Config(Data)),
        Experiment(name="a"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "p"])
def test_form_left_as_it_is_changes_nothing(config, prefix):
    values = ParamsDict(params_from(config, prefix)).validate()
    changed = apply_overrides(config, overrides_from(values, prefix))
    assert plans.digest(plans.to_plan(changed)) == plans.digest(plans.to_plan(config))


def test_values_of_a_run_become_overrides():
    config = Config(train, model=Config(Model, hidden=3), optimizer=Config(Optimizer))
    values = ParamsDict(params_from(config, "p")).validate()
    values |= {"p.model.hidden": 9, "p.optimizer.color": "BLUE", "p.start": "2026-01-02", "other": 1, "px": 2}
    values["p.overrides"] = {"names": {"a": [1]}, "model.hidden": 10, "optimizer.lr": "1e-2"}
    overrides = overrides_from(values, "p")
    assert "other" not in overrides
    changed = apply_overrides(config, overrides)
    validate(changed)
    assert (changed.model.hidden, changed.optimizer.color, changed.optimizer.lr) == (10, Color.BLUE, 0.01)
    assert changed.start == datetime.date(2026, 1, 2)
    assert changed.names == {"a": [1]}


def test_params_of_airflows_own_kind_are_read_too():
    params = ParamsDict(params_from(Config(Model, hidden=3), "p"))
    assert overrides_from(params, "p") == {"hidden": 3, "activation": "relu", "dropout": 0.0}


def test_key_that_is_not_in_the_config_is_refused():
    with pytest.raises(OverrideError, match="'hiden'; did you mean 'hidden'"):
        apply_overrides(Config(Model, hidden=3), overrides_from({"p.hiden": 3}, "p"))
    with pytest.raises(OverrideError, match=r"p\.overrides: expected an object"):
        overrides_from({"p.overrides": [1]}, "p")
    assert overrides_from({"p.overrides": None}, "p") == {}


def with_overrides(overrides: int = 1) -> None:
    return None


def test_config_that_takes_the_forms_own_name_is_refused():
    with pytest.raises(ConfigError, match="overrides"):
        params_from(Config(with_overrides))


def test_reading_a_runs_params_needs_no_airflow():
    code = (
        "import sys; from nemo_airflow.operators.params import overrides_from;"
        "assert overrides_from({'p.a': 1}, 'p') == {'a': 1}; assert 'airflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


class Frozen:
    def __init__(self, layers: dict[str, int] = {}, width: int = 3):  # noqa: B006
        raise NotImplementedError


def with_mutable_defaults(
    layers: list[int] = [64, 64],  # noqa: B006
    lr: float = 1e-3,
    limits: dict[str, int] = {"a": 1},  # noqa: B006
    seeds: set[int] = {1},  # noqa: B006
    data: Data = Data(),  # noqa: B008
    array: typing.Any = bytearray(b"1"),  # noqa: B008
    net: Frozen | None = None,
) -> None:
    return None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            Config(with_mutable_defaults),
            {"layers": [64, 64], "lr": 1e-3, "limits.a": 1, "seeds": [1], "data.seed": None},
        ),
        (Config(with_mutable_defaults, layers=[1]), {"layers": [1], "lr": 1e-3}),
        (Config(with_mutable_defaults, net=Config(Frozen)), {"layers": [64, 64], "net.width": 3}),
    ],
)
def test_a_default_that_can_be_changed_has_its_field(config, expected):
    fields = form_fields(config)
    assert {name: fields[name].default for name in expected} == expected
    assert "array" not in fields
    assert ParamsDict(params_from(config)).validate()["layers"] == expected["layers"]


@pytest.mark.parametrize("make", [Config, Recipe], ids=["config", "recipe"])
def test_a_default_of_code_that_is_not_here_that_can_be_changed_has_its_field(tmp_path, monkeypatch, make):
    (tmp_path / "zoo_of_lists.py").write_text(
        "import torchlike\n\ndef small(layers: list[int] = [64, 64], names: dict = {}, lr: float = 0.1): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    fields = form_fields(make("zoo_of_lists:small"))
    assert (fields["layers"].default, fields["lr"].default) == ([64, 64], 0.1)


SET_OF_TEXTS = """
from config_targets import tagged
from nemo_airflow import Config
from nemo_airflow.config import form_fields
print([field.default for field in form_fields(Config(tagged)).values()])
"""


def test_a_set_has_the_same_order_in_the_form_in_every_process():
    found = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", SET_OF_TEXTS]
        found.add(subprocess.run(command, check=True, cwd=Path(__file__).parent, env=env, capture_output=True).stdout)
    assert found == {b"[['a', 'b', 'c', 'd', 'e'], ['BLUE', 'RED']]\n"}


def of_prompts(
    prompt: str = "line 1\nline 2",
    note: str | None = "a\r\nb",
    short: str = "x",
    turns: list[str] = ("a\nb", "c"),
    how: typing.Literal["a\nb", "c"] = "a\nb",
) -> None:
    return None


def test_a_text_of_several_lines_keeps_them_in_the_form():
    fields = form_fields(Config(of_prompts))
    assert fields["prompt"].schema == {"type": "string", "format": "multiline"}
    assert fields["note"].schema == {"type": ["null", "string"], "format": "multiline"}
    assert fields["short"].schema == {"type": "string"}
    assert fields["how"].schema == {"type": "string", "enum": ["a\nb", "c"]}
    assert "turns" not in fields  # there a line is an item
    values = ParamsDict(params_from(Config(of_prompts))).validate()
    assert apply_overrides(Config(of_prompts), overrides_from(values, "")).prompt == "line 1\nline 2"
    assert form_fields(Config(of_prompts, short="a\nb"))["short"].schema["format"] == "multiline"
