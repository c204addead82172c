"""Configs of several layers: what wins, what stays, and what is said where a layer is wrong."""

import contextlib
import copy
import datetime
import sys

import config_targets
import fiddle as fdl
import pytest
from config_targets import Color, Data, Experiment, Model, Optimizer, collect, identity, train
from hypothesis import given, settings
from hypothesis import strategies as st
from model_targets import takes_any

from nemo_airflow import Config, Partial, Recipe
from nemo_airflow.config import compose, from_yaml, to_yaml, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.config.views.provenance import history
from nemo_airflow.exceptions import (
    ConfigError,
    MissingParameterError,
    OverrideError,
    ParameterTypeError,
    PlanError,
    TargetNotAllowedError,
)

ALLOW = ["config_targets."]

BASE = """
_target_: config_targets.train
model: {_target_: config_targets.Model, hidden: 8}
optimizer: {_target_: config_targets.Optimizer, lr: 0.5, layers: [1, 2]}
names: {a: [1], b: [2]}
"""


@pytest.fixture
def folder(tmp_path):
    files = {
        "base.yaml": BASE,
        "exp.yaml": "_base_: base.yaml\nmodel: {hidden: 64}\nnames: {b: [3], c: [4]}\noverrides: ['optimizer.lr*=2']\n",
        "deep/er/exp.yaml": "_base_: [../../exp.yaml, ../epochs.toml]\noptimizer: {color: BLUE}\n",
        "deep/epochs.toml": "epochs = 7\nstart = 2026-01-02\n",
        "values.json": '{"model": {"activation": "tanh"}, "optimizer": {"betas": [0.1, 0.2]}}',
        "groups.yaml": "adam: {_target_: config_targets.Optimizer, lr: 0.125}\n",
        "grouped.yaml": "_base_: base.yaml\noptimizer: {_base_: 'groups.yaml:adam', color: BLUE}\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def base():
    return Config(train, model=Config(Model, hidden=3), optimizer=Config(Optimizer, lr=0.5), names={"a": [1]})


def test_later_layers_win_and_what_they_do_not_name_stays(base):
    before = plans.dumps(plans.to_plan(base))
    layers = [
        {"model": {"hidden": 4}, "names": {"b": [2]}},
        Config(train, optimizer=Config(Optimizer, color=Color.BLUE), epochs=5),
        {"optimizer.betas": [0.1, 0.2], "model": {"activation": "tanh"}},
        ["model.hidden+=1", "names.a=[9]"],
    ]
    composed = compose(base, *layers)
    assert composed == Config(
        train,
        model=Config(Model, hidden=5, activation="tanh"),
        optimizer=Config(Optimizer, lr=0.5, color=Color.BLUE, betas=(0.1, 0.2)),
        epochs=5,
        names={"a": [9], "b": [2]},
    )
    assert plans.dumps(plans.to_plan(base)) == before
    assert layers[0] == {"model": {"hidden": 4}, "names": {"b": [2]}}
    assert layers[1].optimizer == Config(Optimizer, color=Color.BLUE)


def test_a_config_of_another_target_takes_the_place_of_the_old_one(base):
    composed = compose(base, Config(train, model=Config(config_targets.BigModel, hidden=1)))
    assert composed.model == Config(config_targets.BigModel, hidden=1)
    composed = compose(base, {"model": {"_target_": "config_targets.BigModel", "hidden": 2}}, allow=ALLOW)
    assert composed.model == Config(config_targets.BigModel, hidden=2)
    composed = compose(base, {"model": {"_target_": "config_targets.Model", "dropout": 0.5}})
    assert composed.model == Config(Model, hidden=3, dropout=0.5)
    assert compose(base, Config(identity, 3)) == Config(identity, 3)
    assert compose(base, {"optimizer": None}).optimizer is None
    assert compose(base, {"optimizer": None}, {"optimizer": {"_target_": "config_targets:Optimizer"}}, allow=ALLOW)


def test_files_have_bases_relative_to_them_and_overrides_behind_their_values(folder):
    composed = compose(folder / "deep/er/exp.yaml", allow=ALLOW)
    assert composed == Config(
        train,
        model=Config(Model, hidden=64),
        optimizer=Config(Optimizer, lr=1.0, color=Color.BLUE, layers=[1, 2]),
        epochs=7,
        names={"a": [1], "b": [3], "c": [4]},
        start=datetime.date(2026, 1, 2),
    )
    again = compose("exp.yaml", "@values.json", folder=folder, allow=ALLOW)
    assert (again.model.activation, again.optimizer.betas, again.model.hidden) == ("tanh", (0.1, 0.2), 64)


def test_a_base_may_stand_deeper_and_be_a_part_of_a_file(folder):
    composed = compose("grouped.yaml", folder=folder, allow=ALLOW)
    assert composed.optimizer == Config(Optimizer, lr=0.125, layers=[1, 2], color=Color.BLUE)


def test_what_was_written_as_yaml_is_a_layer(base, tmp_path):
    config = Config(
        collect,
        Config(Data, path=config_targets.pathlib.Path("/x"), optimizer=Optimizer(color=Color.BLUE)),
        {1: (2, 3), "s": {4}, "f": float("inf"), "c": config_targets.double},
    )
    (tmp_path / "whole.yaml").write_text(to_yaml(config))
    composed = compose("whole.yaml", folder=tmp_path, allow=ALLOW)
    assert plans.to_plan(composed) == plans.to_plan(from_yaml(to_yaml(config), allow=ALLOW))


def test_anchors_share_what_they_make(tmp_path):
    (tmp_path / "x.yaml").write_text(
        "_target_: config_targets.collect\nitem: &m {_target_: config_targets.Model, hidden: 1}\ntail: [*m, *m]\n"
    )
    composed = compose("x.yaml", {"item": {"hidden": 2}}, folder=tmp_path, allow=ALLOW)
    assert composed.item is composed.tail[0] is composed.tail[1]
    assert composed.tail[1].hidden == 2


def test_shared_parts_of_a_layer_of_code_stay_shared():
    model = Config(Model, hidden=1)
    composed = compose(Config(collect), Config(collect, model, [model]), {"item.hidden": 2})
    assert composed.item is composed.tail[0]
    assert (composed.tail[0].hidden, model.hidden) == (2, 1)


def test_a_partial_is_a_template_that_layers_fill_in():
    template = Partial(train, model=Config(Model), epochs=3)
    with pytest.raises(MissingParameterError, match=r"^model\.hidden: Model requires this"):
        compose(template)
    assert type(compose(template, check=False)) is Partial
    filled = compose(template, {"model": {"hidden": 8}})
    assert filled == Partial(train, model=Config(Model, hidden=8), epochs=3)
    assert type(filled) is Partial
    for layer in ({"_partial_": False}, {"_target_": "config_targets.train", "_partial_": False}, Config(train)):
        called = compose(filled, layer)
        assert called == Config(train, model=Config(Model, hidden=8), epochs=3)
        assert type(called) is Config
    assert type(compose(called, Partial(train, epochs=4))) is Partial
    assert type(compose(called, {"_partial_": True})) is Partial


def test_partial_and_config_are_converted_with_what_they_hold():
    template = Partial(train, model=Config(Model, hidden=8), epochs=3)
    called = fdl.cast(Config, template)
    assert called == Config(train, model=Config(Model, hidden=8), epochs=3)
    assert type(called) is Config
    assert called.model is template.model
    with pytest.raises(ParameterTypeError):
        called.epochs = "x"
    assert fdl.cast(Partial, called) == template
    assert history(called, "epochs") == history(template, "epochs")
    validate(called)


def test_recipes_are_layers_and_what_they_return_is_changed_in_the_job(tmp_path):
    (tmp_path / "zoo.py").write_text(
        "import torchlike\n\ndef small(hidden: int = 1, names: dict | None = None): ...\n\n"
        "class Adam:\n    def __init__(self, lr: float): ...\n"
    )
    recipe = Recipe("zoo:small", ["net.rate=2"], source=tmp_path, names={"a": 1})
    layer = {"hidden": 2, "names": {"b": 2}, "net": {"depth": 3, "act": {"kind": "relu"}, "opt": "x"}}
    composed = compose(recipe, layer, Recipe("zoo:small", ["net.depth*=2"], source=tmp_path, hidden=5))
    assert (composed.hidden, composed.names) == (5, {"a": 1, "b": 2})
    assert composed.__recipe_overrides__ == [
        "net.rate=2", "net.depth=3", "net.act.kind=relu", "net.opt=x", "net.depth*=2",
    ]  # fmt: skip
    assert recipe.__recipe_overrides__ == ["net.rate=2"]
    composed = compose(recipe, {"net": {"opt": {"_target_": "zoo.Adam", "lr": 0.5}}})
    assert composed.__recipe_overrides__[-1] == "net.opt=zoo:Adam(lr=0.5)"
    with pytest.raises(ParameterTypeError, match=r"net\.opt\.lr: expected float, got 'fast'"):
        compose(recipe, {"net": {"opt": {"_target_": "zoo.Adam", "lr": "fast"}}})
    assert "zoo" not in sys.modules


def test_config_classes_and_dataclasses_are_laid_over_too():
    assert compose(Experiment(name="a"), {"lr": 0.5}) == Experiment(name="a", lr=0.5)
    assert compose(Experiment(name="a"), Experiment(name="b")) == Experiment(name="b")
    composed = compose(Config(train, model=Config(Model, 1), data=Data(seed=1)), {"data": {"optimizer": {"lr": 0.5}}})
    assert (composed.data.seed, composed.data.optimizer.lr) == (1, 0.5)
    composed = compose(Config(takes_any), {"value": {"a": 1}}, {"value": {"b": 2}})
    assert composed.value == {"a": 1, "b": 2}


def test_a_name_of_code_is_a_layer_under_the_allow_list(tmp_path, monkeypatch):
    (tmp_path / "exps.py").write_text(
        "from nemo_airflow import Config\nfrom config_targets import Model, double as leaked\n"
        "base = Config(Model, hidden=1)\ndef made(hidden: int = 2):\n    return Config(Model, hidden=hidden)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "exps", raising=False)
    assert compose("exps:base", allow=["exps."]).hidden == 1
    assert compose("exps.made", allow=["exps."]).hidden == 2
    assert compose("exps:made(hidden=3)", allow=["exps."]).hidden == 3
    with pytest.raises(
        TargetNotAllowedError, match=r"from 'config_targets', which is not allowed.*in layer 1, exps:leaked"
    ):
        compose("exps:leaked", allow=["exps."])
    del sys.modules["exps"]
    with pytest.raises(TargetNotAllowedError, match=r"'exps:base' is not allowed here"):
        compose("exps:base")
    assert "exps" not in sys.modules


def test_templates_are_left_to_the_operator(base):
    composed = compose(base, {"model": {"hidden": "{{ params.hidden }}"}})
    assert composed.model.hidden == "{{ params.hidden }}"


def test_overrides_may_be_the_name_of_a_parameter(tmp_path, monkeypatch):
    (tmp_path / "named.py").write_text("def run(overrides: list[str]): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    composed = compose({"_target_": "named.run"}, {"overrides": ["x"]}, allow=["named."])
    assert composed.overrides == ["x"]


@pytest.mark.parametrize(
    ("layer", "kind", "message"),
    [
        ({"model": {"hiden": 3}}, OverrideError,
         "model.hiden: Model has no parameter 'hiden' at model; did you mean 'hidden'? "
         "valid: hidden, activation, dropout (in layer 2, values)"),
        ({"model": {"hidden": "3"}}, ParameterTypeError, "model.hidden: expected int, got '3' (in layer 2, values)"),
        ({"names": {"b": ["x"]}}, ParameterTypeError, "names.b.0: expected int, got 'x' (in layer 2, values)"),
        ({"model": {"_target_": "os.system"}}, TargetNotAllowedError,
         "model: target 'os:system' is not allowed here: add it to allow (in layer 2, values)"),
        ({"model": {"_x_": 1}}, PlanError, "model: '_x_': not a form of node that a plan has (in layer 2, values)"),
        ({"_partial_": "no"}, OverrideError, "_partial_ must be true or false (in layer 2, values)"),
        ({"data": {"seed": 1}}, ParameterTypeError, "data: expected Data, got {'seed': 1}"),
        (["model.hidden=x"], ParameterTypeError, "model.hidden: expected int, got 'x' (in layer 2, overrides)"),
        ("model.hidden=3", ConfigError, "'model.hidden=3' is a single override: give a list of overrides as a layer"),
        ("nowhere.yaml", OverrideError, "cannot read nowhere.yaml: No such file or directory (looked for"),
        ("nowhere", ConfigError, "no recipe 'nowhere' is registered under 'nemo_airflow.recipes'"),
        ("no where(", ConfigError, "no recipe 'no where(' is registered"),
        (3, ConfigError, "a layer is int: give a config, a file, a name"),
        ([3], ConfigError, "a layer is list: give a config"),
        ({"_base_": 3}, ConfigError, "_base_ is 3: write a file or the name of a recipe"),
        ({"_base_": "base.yaml", "overrides": ["x"]}, OverrideError, "x\n    "),
    ],
)  # fmt: skip
def test_an_error_names_the_layer_and_the_path(base, folder, layer, kind, message):
    with pytest.raises(ConfigError) as caught:
        compose(base, layer, folder=folder)
    assert message in str(caught.value)
    assert "in layer 2" in str(caught.value)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x.yaml": "_base_: x.yaml"}, "x.yaml is among its own bases: "),
        ({"x.yaml": "_base_: y.yaml", "y.yaml": "_base_: [base.yaml, x.yaml]"}, "(in layer 1, x.yaml, its base y"),
        ({"x.yaml": "_base_: base.yaml\noverrides: ['@x.yaml']"}, "x.yaml is among its own bases: "),
        ({"x.yaml": "_base_: base.yaml\nmodel: {_base_: x.yaml}"}, "x.yaml is among its own bases: "),
        ({"x.yaml": "_base_: base.yaml\noverrides: ['model=@x.yaml']"}, "x.yaml is among its own bases: "),
        ({"x.yaml": "[1]"}, "x.yaml contains a list, but a layer has to be a mapping of values"),
        ({"x.yaml": "_base_: y.yaml", "y.yaml": "_base_: base.yaml\nmodel: {hiden: 3}"},
         "(in layer 1, x.yaml, its base y.yaml)"),
        ({"x.yaml": "a: 1"}, "the layers together are a dict, not a config: add a _target_"),
        ({"x.yaml": "overrides: ['a=1']"}, "there is no config yet for overrides to change"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_told_with_the_way_to_it(folder, files, message):
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        compose("x.yaml", folder=folder, allow=ALLOW)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_history_tells_the_layer_that_set_a_value(base, folder):
    composed = compose(base, "exp.yaml", {"epochs": 2}, ["optimizer.lr=3"], folder=folder, allow=ALLOW)
    where = {path: history(composed, path)[0].where for path in ("model.hidden", "epochs", "optimizer.lr", "names")}
    assert where["model.hidden"].startswith("the file's values from ")
    assert where["model.hidden"].endswith("exp.yaml")
    assert "test_composition.py:" in where["epochs"]
    assert "test_composition.py:" in where["optimizer.lr"]
    code = compose(Config(train), Config(train, model=Config(Model, hidden=1)))
    assert "test_composition.py:" in history(code, "model.hidden")[0].where


def deep(depth, make, leaf):
    for _ in range(depth):
        leaf = make(leaf)
    return leaf


def test_layers_may_be_deep_and_those_that_are_too_deep_are_refused():
    base = deep(199, lambda inner: Config(identity, inner), Config(Model, 1))
    composed = compose(base, deep(199, lambda inner: Config(identity, inner), Config(Model, 2)), check=False)
    leaf = composed
    while leaf.__fn_or_cls__ is identity:
        leaf = leaf.value
    assert leaf.hidden == 2
    with pytest.raises(PlanError, match="nested deeper than 200 levels"):
        compose(base, deep(200, lambda inner: Config(identity, inner), Config(Model, 2)), check=False)
    for levels, says in ((201, "nested deeper than 200 levels"), (3000, "nested too deep")):
        for layer in (
            deep(levels, lambda inner: {"value": inner}, 1),
            {"value": deep(levels, lambda inner: [inner], 1)},
        ):
            with pytest.raises(ConfigError, match=says):
                compose(Config(identity), layer)


def test_what_is_in_many_places_is_laid_over_once():
    def diamonds(hidden):
        return deep(60, lambda inner: Config(collect, inner, inner), Config(Model, hidden))

    leaf = compose(diamonds(1), diamonds(2), check=False)
    while leaf.__fn_or_cls__ is collect:
        leaf = leaf.tail
    assert leaf.hidden == 2


WORDS = st.sampled_from(
    ["model", "optimizer", "hidden", "lr", "betas", "names", "data", "model.hidden", "optimizer.betas.0", "names['x']",
     "_target_", "_partial_", "_args_", "_base_", "_ref_", "_path_", "_tuple_", "_recipe_", "_id_", "overrides", "a",
     "",
     "config_targets.train", "config_targets:Model", "config_targets.BigModel", "os.system", "/data", "x.yaml", "relu",
     "BigModel(hidden=3)", "@x.yaml", "{{ x }}", "model.hidden=4", "names={a: [2]}"]
)  # fmt: skip
LAYER = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.integers(0, 2), inner, max_size=4),
    max_leaves=10,
)


PARTS = st.fixed_dictionaries(
    {},
    optional={
        "model": LAYER | st.fixed_dictionaries({}, optional={"hidden": LAYER, "_target_": WORDS, "_args_": LAYER}),
        "optimizer": st.fixed_dictionaries(
            {}, optional={"betas": LAYER, "lr": LAYER, "layers": LAYER, "_partial_": LAYER}
        ),
        "names": LAYER | st.dictionaries(st.text(max_size=2), st.lists(st.integers(0, 3), max_size=2), max_size=3),
        "data": LAYER | st.fixed_dictionaries({"_target_": st.just("config_targets.Data")}, optional={"path": LAYER}),
        "callback": LAYER,
        "overrides": st.lists(WORDS, max_size=2),
    },
)


@given(st.lists(LAYER | PARTS, max_size=3))
@settings(max_examples=500, deadline=None)
def test_any_layers_make_up_a_config_or_are_refused_by_us(layers):
    base = Config(train, model=Config(Model, hidden=3), optimizer=Optimizer(), names={"a": [1]})
    before = plans.dumps(plans.to_plan(base))
    copies = copy.deepcopy(layers)
    with contextlib.suppress(ConfigError):
        composed = compose(base, *layers, allow=ALLOW, folder="/nowhere", check=False)
        assert compose(composed, check=False) == composed
        plans.to_plan(composed, check=False)
    assert plans.dumps(plans.to_plan(base)) == before
    assert repr(layers) == repr(copies)
