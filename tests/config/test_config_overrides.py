"""Overrides of configs by dotted path."""

import copy
import datetime
import decimal
import typing
from pathlib import Path

import pytest
from config_targets import (
    Color,
    Data,
    Experiment,
    Model,
    Optimizer,
    apply,
    collect,
    constrained,
    double,
    identity,
    positional,
    train,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_airflow import Config, Partial
from nemo_airflow.config import apply_overrides
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import ConfigError, OverrideError, ParameterTypeError
from nemo_airflow.language.overrides.paths import parse_path


def error_of(make, kind=OverrideError):
    with pytest.raises(kind) as caught:
        make()
    assert type(caught.value) is kind
    assert_one_line_or_a_caret(str(caught.value))
    return str(caught.value)


def assert_one_line_or_a_caret(message):
    """A text that cannot be read is shown below the one line, with a caret below the place."""
    line, *place = message.split("\n")
    assert line
    assert not place or (len(place) == 2 and place[1].strip() == "^")


@pytest.fixture
def config():
    return Config(
        train,
        model=Config(Model, hidden=3),
        optimizer=Config(Optimizer, layers=[1, 2]),
        names={"a": [1], "b.c": [2]},
        data=Data(optimizer=Optimizer(lr=0.5)),
    )


def value_at(config, path):
    for key in parse_path(path):
        config = (
            getattr(config, key)
            if isinstance(key, str) and hasattr(config, key)
            else config[int(key) if key.isdigit() else key]
        )
    return config


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("model.hidden", "64", 64),
        ("model.dropout", "3e-4", 3e-4),
        ("model.dropout", "1", 1.0),
        ("model.dropout", ".inf", float("inf")),
        ("model.activation", "tanh", "tanh"),
        ("optimizer.color", "BLUE", Color.BLUE),
        ("optimizer.color", "b", Color.BLUE),
        ("optimizer.betas", "[0.1, 0.2]", (0.1, 0.2)),
        ("optimizer.betas.1", "0.3", 0.3),
        ("optimizer.layers", "[]", []),
        ("optimizer.layers.-1", "7", 7),
        ("optimizer", "null", None),
        ("names", "{x: [1, 2]}", {"x": [1, 2]}),
        ("names.a.0", "5", 5),
        ("names['b.c'].0", "6", 6),
        ("start", "2026-01-02", datetime.date(2026, 1, 2)),
        ("data.path", "/x y", Path("/x y")),
        ("data.seed", "7", 7),
        ("data.seed", "None", None),
        ("data.optimizer.lr", "0.25", 0.25),
    ],
)
def test_text_is_typed_by_the_annotation(config, path, text, value):
    before = copy.deepcopy(config)
    changed = apply_overrides(config, [f"{path}={text}"])
    found = value_at(changed, path.replace(".-1", ".1"))
    assert found == value
    assert type(found) is type(value)
    assert config == before
    plans.to_plan(changed)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("true", True),
        ("null", None),
        ("[1, a]", [1, "a"]),
        ("a b", "a b"),
        ("", ""),
        ('"3"', "3"),
        ("yes", "yes"),
        ("a=b", "a=b"),
    ],
)
def test_text_without_an_annotation_is_a_literal_where_it_is_one(text, value):
    assert apply_overrides(Config(identity), [f"value={text}"]).value == value


def test_text_stays_a_text_where_one_is_wanted():
    assert apply_overrides(Experiment(name="a"), ["name=123"]).name == "123"
    assert apply_overrides(Experiment(name="a"), ["name=null"]).name == "null"
    assert apply_overrides(Config(constrained, rate=1.0), ["size=3"]).size == 3
    assert apply_overrides(Config(constrained, rate=1.0), {"size": "3"}).size == "3"


def test_values_are_taken_strictly_or_converted(config):
    changed = apply_overrides(
        config, {"model.hidden": 5, "optimizer.lr": "0.5", "optimizer.betas": [1, 2], "callback": double}
    )
    assert (changed.model.hidden, changed.optimizer.lr, changed.optimizer.betas) == (5, 0.5, (1, 2))
    assert changed.callback is double
    assert type(changed.optimizer.betas) is tuple
    assert apply_overrides(config, {"optimizer": Config(Optimizer, lr=1.0)}).optimizer.lr == 1.0


def test_parameters_left_at_their_default_can_be_set():
    assert apply_overrides(Config(train), ["epochs=5"]).epochs == 5
    assert apply_overrides(Config(Data), ["optimizer.betas.0=0.5"]).optimizer.betas == (0.5, 0.99)
    assert Data().optimizer.betas == (0.9, 0.99)
    assert apply_overrides(Config(Model), {"hidden": 3}).hidden == 3


def test_arguments_without_a_name_are_set_by_position():
    changed = apply_overrides(Config(positional, 1, "x", 2.0, 3.0, k=1), ["0=7", "3=9", "b=y", "k=2"])
    assert changed == Config(positional, 7, "y", 2.0, 9.0, k=2)


def test_shared_parts_stay_shared():
    model, optimizer = Config(Model, hidden=1), Optimizer()
    config = Config(collect, [model, optimizer], [model, optimizer])
    changed = apply_overrides(config, ["item.0.hidden=2", "item.1.lr=3"])
    assert changed.item[0] is changed.tail[0]
    assert changed.tail[0].hidden == 2
    assert changed.item[1] is changed.tail[1]
    assert changed.tail[1].lr == 3
    assert (model.hidden, optimizer.lr) == (1, 1e-3)


def test_later_overrides_see_the_earlier_ones(config):
    changed = apply_overrides(config, ["optimizer=null", "model.hidden=1", "model.hidden=2"])
    assert changed.model.hidden == 2
    assert changed.optimizer is None


def test_templates_may_be_set(config):
    assert apply_overrides(config, {"model.hidden": "{{ x }}"}).model.hidden == "{{ x }}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.hiden=3",
            "model.hiden: Model has no parameter 'hiden' at model; did you mean 'hidden'? valid: hidden, activation",
        ),
        (
            "modle.hidden=3",
            "modle.hidden: train has no parameter 'modle'; did you mean 'model'? valid: model, optimizer",
        ),
        ("names.x=1", "names.x: this dict has no item 'x' at names; valid: a, b.c; names|={x: ...} adds one"),
        ("optimizer.layers.2=1", "optimizer.layers.2: this list has no item '2' at optimizer.layers; valid: 0, 1"),
        ("optimizer.layers.x=1", "this list has no item 'x'"),
        ("model.hidden.x=1", "model.hidden.x: model.hidden is of type int and has nothing below it"),
        ("callback.x=1", "callback.x: callback is None and has nothing below it"),
        ("model.hidden", "not of the form path=value"),
        ("=3", "not of the form path=value"),
        ("model..hidden=3", "not a path: expected a name"),
        (".model=3", "not a path: expected a name"),
        ("model.=3", "not a path: expected a name"),
        ("names[b.c]=3", "not a path: expected a number or a quoted name in the brackets"),
    ],
)
def test_path_that_is_not_there_is_refused_with_the_nearest_names(config, override, message):
    assert message in error_of(lambda: apply_overrides(config, [override]))


def test_path_below_a_value_that_is_missing_is_refused():
    assert "model is not set" in error_of(lambda: apply_overrides(Config(train), ["model.hidden=1"]))
    assert error_of(lambda: apply_overrides(Config(train), {3: 1})) == "the path 3 is not a text"
    assert "of the form path=value, not int" in error_of(lambda: apply_overrides(Config(train), [3]))


def of_nothing(
    extra: dict[str, int] | None = None,
    nested: dict[str, dict[str, int]] | None = None,
    optimizer: Optimizer | None = None,
    model: Model | None = None,
    anything: typing.Any = None,
) -> None:
    return None


@pytest.mark.parametrize(
    ("override", "whole"),
    [
        ("extra.a=1", "extra={a: 1}"),
        ("nested.a.b=1", "nested={a: {b: 1}}"),
        ("optimizer.lr=0.1", "optimizer=Optimizer(lr=0.1)"),
        ("model.hidden=3", "model=Model(hidden=3)"),
    ],
)
def test_path_below_none_is_refused_with_what_makes_it(override, whole):
    config = Config(of_nothing)
    message = error_of(lambda: apply_overrides(config, [override]))
    assert message.endswith(f"is None and has nothing below it; write {whole}")
    made = apply_overrides(config, [whole], allow=["config_targets."])
    path, _, value = override.partition("=")
    assert str(value_at(made, path)) == value


def test_path_below_none_of_no_known_type_is_refused():
    for override in ("anything.a=1", "optimizer.rate=1", "extra.a+=1"):
        assert error_of(lambda text=override: apply_overrides(Config(of_nothing), [text])).endswith("nothing below it")
    message = error_of(lambda: apply_overrides(Config(train), ["model.hidden=1"]))
    assert message.endswith("model is not set, so nothing below it can be changed; write model=Model(hidden=1)")


def of_numbers(
    i: int = 0, fl: float = 0.0, numbers: list[int] | None = None, maybe: int | None = None,
    amount: decimal.Decimal = decimal.Decimal(0), wait: datetime.timedelta = datetime.timedelta(0), flag: bool = False,
) -> None:  # fmt: skip
    return None


@pytest.mark.parametrize("name", ["i", "fl", "maybe", "amount", "wait"])
@pytest.mark.parametrize(
    "given", [lambda name: [f"{name}=true"], lambda name: {name: True}, lambda name: {name: "true"}]
)
def test_a_truth_value_is_no_number(name, given):
    assert f"{name}: expected" in error_of(lambda: apply_overrides(Config(of_numbers), given(name)), ParameterTypeError)


def test_a_truth_value_in_a_list_is_no_number_and_elsewhere_what_it_says():
    error = error_of(lambda: apply_overrides(Config(of_numbers), ["numbers=[1, true]"]), ParameterTypeError)
    assert error == "numbers.1: expected int, got True"
    assert apply_overrides(Config(of_numbers), ["flag=true"]).flag is True
    assert apply_overrides(Config(of_numbers), ["i=1", "fl=1"]) == Config(of_numbers, i=1, fl=1.0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.hidden=x"], "model.hidden: expected int, got 'x'"),
        (["model.hidden=1.5"], "model.hidden: expected int, got '1.5'"),
        (["model.activation=gelu"], "model.activation: expected one of 'relu', 'tanh', got 'gelu'"),
        (["optimizer.color=GREEN"], "optimizer.color: expected Color (RED, BLUE), got 'GREEN'"),
        (["names={a: [x]}"], "names.a.0: expected int, got 'x'"),
        (["optimizer={lr: 0.5}"], "optimizer: expected Optimizer, got {'lr': 0.5}; write Optimizer(lr=...)"),
        (["optimizer={rate: 0.5}"], "optimizer: expected Optimizer, got {'rate': 0.5}"),
        ({"names": {"a": ["x"]}}, "names.a.0: expected int, got 'x'"),
        ({"model": 3}, "model: expected Model, got 3"),
        ({"optimizer.betas.1": []}, "optimizer.betas.1: expected float, got []"),
    ],
)
def test_wrong_value_is_refused_with_its_path(config, overrides, message):
    assert error_of(lambda: apply_overrides(config, overrides), ParameterTypeError) == message


def test_partials_and_containers_can_be_overridden():
    assert apply_overrides(Partial(apply, double), ["times=3"]).times == 3
    assert apply_overrides([Config(Model, 1)], ["0.hidden=2"])[0].hidden == 2
    assert apply_overrides((1, 2), {"1": 3}) == (1, 3)


@given(st.text(alphabet="model.hidn=[]'\"01-x{}: ", max_size=25))
@settings(max_examples=300, deadline=None)
def test_any_text_is_an_override_or_refused_by_us(text):
    refusal = ""
    try:
        apply_overrides(Config(train, model=Config(Model, hidden=3), names={"x": [1]}), [text])
    except ConfigError as error:
        refusal = str(error)
    assert_one_line_or_a_caret(refusal)
