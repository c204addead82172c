"""Overrides whose values are factories, files and ``_target_`` mappings, and what they leave in the history."""

import contextlib
import datetime
import json
from pathlib import Path

import config_targets
import pytest
from config_targets import Color, Data, Experiment, Model, Optimizer, identity, train, use_experiment
from fiddle import printing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nemo_airflow import Config, Partial
from nemo_airflow.config import apply_overrides, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.config.views.provenance import history
from nemo_airflow.exceptions import (
    ConfigError,
    OverrideError,
    ParameterTypeError,
    PlanError,
    TargetNotAllowedError,
    TargetNotImportableError,
    UnknownParameterError,
)
from nemo_airflow.language.overrides.writing import format_override

ALLOW = ["config_targets."]


@pytest.fixture
def config():
    return Config(train, model=Config(Model, hidden=3), optimizer=Config(Optimizer))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "o.yaml").write_text("big: {_target_: config_targets.BigModel, hidden: 9}\nlr: 0.25\n")
    (tmp_path / "o.json").write_text(json.dumps({"big": {"_target_": "config_targets:BigModel", "hidden": 9}}))
    (tmp_path / "o.toml").write_text('when = 2026-01-02\n[big]\n_target_ = "config_targets.BigModel"\nhidden = 9\n')
    (tmp_path / "based.yaml").write_text("_base_: o.yaml:big\n")
    (tmp_path / "values.yaml").write_text("model: {hidden: 7}\noptimizer: {lr: 0.5}\noverrides: [epochs=4]\n")
    return tmp_path


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("optimizer=Optimizer(lr=0.1)", "optimizer", Config(Optimizer, lr=0.1)),
        ("optimizer=Optimizer(0.1, BLUE)", "optimizer", Config(Optimizer, lr=0.1, color=Color.BLUE)),
        ("model=BigModel(hidden=4, activation=tanh)", "model", Config(config_targets.BigModel, 4, activation="tanh")),
        ("model=config_targets:BigModel(4)", "model", Config(config_targets.BigModel, 4)),
        ("model=config_targets.BigModel(4)", "model", Config(config_targets.BigModel, 4)),
        ("model=config_targets:Model.small(4)", "model", Config(Model.small, 4)),
        ("model=make_model(4)", "model", Config(config_targets.make_model, 4)),
        ("model={_target_: config_targets.BigModel, hidden: 4}", "model", Config(config_targets.BigModel, 4)),
        ("model={_target_: config_targets.BigModel, _args_: [4]}", "model", Config(config_targets.BigModel, 4)),
        ("data=Data(path=/x, optimizer=Optimizer())", "data", Config(Data, Path("/x"), Config(Optimizer))),
        ("callback={_target_: config_targets.double, _partial_: true}", "callback", Partial(config_targets.double)),
        ("callback={_ref_: config_targets.double}", "callback", config_targets.double),
        ("start={_date_: 2026-01-02}", "start", datetime.date(2026, 1, 2)),
        ("optimizer.betas=(0.1, 0.2)", "optimizer.betas", (0.1, 0.2)),
        ("names={a: [1]}", "names", {"a": [1]}),
    ],
)
def test_factories_and_targets_become_configs_that_fit_their_place(config, override, path, expected):
    changed = apply_overrides(config, [override], allow=ALLOW)
    found = changed
    for key in path.split("."):
        found = getattr(found, key)
    assert found == expected
    assert type(found) is type(expected)
    plans.to_plan(changed)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"_target_": "config_targets.BigModel", "hidden": 4}, Config(config_targets.BigModel, 4)),
        ("BigModel(hidden=4)", Config(config_targets.BigModel, 4)),
        (Config(Model, 5), Config(Model, 5)),
    ],
)
def test_values_of_a_mapping_become_configs_too(config, value, expected):
    assert apply_overrides(config, {"model": value}, allow=ALLOW).model == expected
    inside = apply_overrides(Config(identity), {"value": {"a": [value, 1]}}, allow=ALLOW).value["a"][0]
    assert inside == (value if isinstance(value, str) else expected)


def test_a_text_stays_a_text_where_one_fits():
    for text in ("Model(hidden=3)", "@/etc/secret.yaml"):
        assert apply_overrides(Experiment(name="a"), {"name": text}).name == text
        assert apply_overrides(Config(identity), {"value": text}).value == text


def test_a_config_class_is_a_factory_of_itself():
    config = Config(use_experiment, experiment=Experiment(name="a"))
    changed = apply_overrides(config, ["experiment=LongExperiment(name=b, epochs=3)"], allow=ALLOW)
    assert type(changed.experiment) is config_targets.LongExperiment
    assert (changed.experiment.name, changed.experiment.epochs) == ("b", 3)
    validate(changed)


def test_values_are_changed_with_factories(config):
    changed = apply_overrides(
        Config(identity, [Config(Model, 1)]), ["value+=Model(2)", "value+=[Model(3)]"], allow=ALLOW
    )
    assert [model.hidden for model in changed.value] == [1, 2, 3]


@pytest.mark.parametrize(
    ("override", "kind", "message"),
    [
        ("model=BigModel(hiden=4)", UnknownParameterError, "model.hiden: BigModel has no parameter 'hiden'; did you"),
        ("model=BigModel(hidden=x)", ParameterTypeError, "model.hidden: expected int, got 'x'"),
        ("model=BigModel(1, tanh, 0, 3)", UnknownParameterError, "model: BigModel does not take 4 positional"),
        ("model=BigModel(1, hidden=3)", UnknownParameterError, "model: BigModel is given 'hidden' twice"),
        ("model=Optimizer()", ParameterTypeError, "model: expected Model, got Config(config_targets.Optimizer)"),
        ("model=BigModl()", OverrideError, "model: no recipe 'BigModl' is registered, and the modules of"),
        ("model=config_targets:BigModl()", TargetNotImportableError, "model: module 'config_targets' has no 'BigModl'"),
        ("model=os:system(ls)", TargetNotAllowedError, "model: target 'os:system' is not allowed here"),
        ("model=config_targets:functools.partial()", TargetNotAllowedError, "model: target"),
        ("model=config_targets:imported_on_purpose(int)", TargetNotAllowedError, "is from 'functools', which"),
        ("model={_target_: 3}", OverrideError, "model: 3 is not the name of a target"),
        ("model={_target_: os.system}", TargetNotAllowedError, "model: target 'os:system' is not allowed here"),
        ("model={_target_: config_targets.Model, _x_: 3}", OverrideError, "model: _x_ cannot be used together"),
        ("model={_target_: config_targets.Model, _args_: 3}", OverrideError, "model: _args_ must be a list"),
        ("model={_partial_: true}", PlanError, "model: '_partial_': not a form of node that a plan has"),
        ("model={_target_: config_targets.Model, hidden: {_target_: os.x}}", TargetNotAllowedError, "model.hidden: "),
        ("model=@o.yaml", OverrideError, "model: @o.yaml: overrides from the form may not read files"),
        ("@o.yaml", OverrideError, "@o.yaml: overrides from the form may not read files"),
        ("model=Model(3", OverrideError, "expected"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_path(config, override, kind, message):
    with pytest.raises(kind) as caught:
        apply_overrides(config, [override], allow=ALLOW, origin="the form")
    assert type(caught.value) is kind
    assert message in str(caught.value)


def test_what_the_config_names_itself_needs_no_allow_list(config):
    assert apply_overrides(config, ["model=Model(hidden=4)"]).model.hidden == 4
    with pytest.raises(TargetNotAllowedError, match=r"config_targets:BigModel"):
        apply_overrides(config, ["model=BigModel(hidden=4)"])


def test_a_caret_shows_which_part_of_a_path_is_wrong(config):
    with pytest.raises(OverrideError) as caught:
        apply_overrides(config, ["optimizer.betas.7=3"])
    line, text, caret = str(caught.value).split("\n")
    assert line.startswith("optimizer.betas.7: this tuple has no item '7' at optimizer.betas; valid: 0, 1")
    assert text[caret.index("^")] == "7"


@pytest.mark.parametrize("file", ["o.yaml:big", "o.json:big", "o.toml:big", "based.yaml"])
def test_a_value_comes_from_a_file_of_each_kind(config, folder, file):
    changed = apply_overrides(config, [f"model=@{file}"], allow=ALLOW, folder=folder)
    assert changed.model == Config(config_targets.BigModel, 9)


def test_files_are_read_for_parts_arguments_and_the_whole_config(config, folder):
    read = {"allow": ALLOW, "folder": folder}
    assert apply_overrides(config, ["optimizer.lr=@o.yaml:lr"], **read).optimizer.lr == 0.25
    assert apply_overrides(config, ["optimizer=Optimizer(lr=@o.yaml:lr)"], **read).optimizer.lr == 0.25
    assert apply_overrides(config, ["start=@o.toml:when"], **read).start == datetime.date(2026, 1, 2)
    changed = apply_overrides(config, ["@values.yaml", "epochs+=1"], **read)
    assert (changed.model.hidden, changed.optimizer.lr, changed.epochs) == (7, 0.5, 5)
    absolute = apply_overrides(config, [f"@{folder / 'values.yaml'}"], **read)
    assert absolute.model.hidden == 7


@pytest.mark.parametrize(
    ("text", "file", "message"),
    [
        (None, "no.yaml", "cannot read no.yaml: No such file or directory (looked for "),
        ("a: [", "x.yaml", "x.yaml: line 2: not YAML"),
        ("!!python/object:os.system x", "x.yaml", "x.yaml: line 1: the YAML tag"),
        ("a = ", "x.toml", "x.toml cannot be read: Invalid value"),
        ('{"a": 1, "a": 2}', "x.json", "x.json cannot be read: the key 'a' is given twice"),
        ("[" * 100_000, "x.json", "x.json cannot be read"),
        ("[" * 300 + "]" * 300, "x.json", "x.json is nested deeper than 200 levels"),
        ("a: 1", "x.yaml:b", "x.yaml has no 'b' at 'b'; valid: a"),
        ("a: 1", "x.yaml:a.b", "x.yaml has no 'b' at 'a.b'; valid: none"),
        (b"\xff\xfe", "x.yaml", "x.yaml cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(config, tmp_path, text, file, message):
    name = file.partition(":")[0]
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OverrideError) as caught:
        apply_overrides(config, [f"model=@{file}"], folder=tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith("model: ")
    assert "\n" not in str(caught.value)


def test_the_history_tells_who_set_what(config, folder):
    changed = apply_overrides(config, ["model.hidden=5"], origin="the command line")
    changed = apply_overrides(changed, {"optimizer.betas.0": 0.5}, origin="the run's conf")
    changed = apply_overrides(changed, ["epochs=2"])
    told = {setting.path: setting.where for setting in reversed(history(changed))}
    assert told["model.hidden"] == "override 'model.hidden=5' from the command line"
    assert told["optimizer.betas"] == "override 'optimizer.betas.0' from the run's conf"
    assert Path(__file__).name in told["epochs"]
    assert Path(__file__).name in told["model"]  # as it was: only what is in it was changed
    printed = printing.history_per_leaf_parameter(changed)
    assert "model.hidden = 5 @ set by override 'model.hidden=5' from the command line" in printed
    assert "set by override 'epochs=2' at " in printed
    made = apply_overrides(changed, ["model=Model(hidden=6)", "epochs~="], origin="the command line")
    (newest, *_) = history(made, "model.hidden")
    assert newest.where == "override 'model=Model(hidden=6)' from the command line"
    (newest, *_) = history(made, "epochs")
    assert (newest.kind, newest.where) == ("deleted", "override 'epochs~=' from the command line")
    filed = apply_overrides(config, ["@values.yaml"], folder=folder, origin="the command line")
    assert history(filed, "epochs")[0].where.startswith("override 'epochs=4' from ")
    assert history(filed, "epochs")[0].where.endswith("values.yaml")
    assert not [setting for setting in history(config) if setting.where.startswith("override")]


WORDS = st.sampled_from(
    ["model", "optimizer", "hidden", "lr", "betas", "names", "data", "0", ".", "=", "+=", "~=", "(", ")", "[", "]", "{",
     "}", ",", ":", "@", "'", '"', "Model", "BigModel", "config_targets", "_target_", "_partial_", "_args_", "_path_",
     "_base_", "_ref_", "os", "system", "x.yaml", "true", "null", "1", "-3", "2e-1", " ", "\\", "é", "{{", "}}",
     "*", "/"]
)  # fmt: skip


@given(st.lists(WORDS, max_size=14).map("".join))
@example("model={_target_: config_targets.Model, _args_: [[1]]}")
@example("names['\\x']=1")
@settings(max_examples=600, deadline=None)
def test_any_text_is_an_override_or_refused_by_us(text):
    config = Config(train, model=Config(Model, hidden=3), optimizer=Config(Optimizer), names={"x": [1]})
    before = plans.dumps(plans.to_plan(config))
    with contextlib.suppress(ConfigError):
        plans.to_plan(apply_overrides(config, [text], allow=ALLOW, folder="/nowhere"), check=False)
    assert plans.dumps(plans.to_plan(config)) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(WORDS, max_size=6).map("".join), JSON)
@settings(max_examples=400, deadline=None)
def test_any_value_of_a_runs_conf_is_taken_or_refused_by_us(path, value):
    config = Config(train, model=Config(Model, hidden=3), optimizer=Config(Optimizer), names={"x": [1]})
    refusal = ""
    try:
        changed = apply_overrides(config, {path: value}, allow=ALLOW, origin="the run's conf")
        plan = plans.to_plan(changed, check=False)
    except ConfigError as error:
        refusal = str(error)
    else:
        assert plans.dumps(plans.loads(plans.dumps(plan))) == plans.dumps(plan)
    assert "\n" not in refusal.partition("\n    ")[0]  # one line, and perhaps the text with a caret below it


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5).filter(lambda key: key[:1] != "_"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(PLAIN.filter(lambda value: "{{" not in repr(value) and "{%" not in repr(value)))
@settings(max_examples=500, deadline=None)
def test_what_is_written_as_an_override_is_set_as_it_was(value):
    changed = apply_overrides(Config(identity), [format_override(["value"], "=", value)])
    assert changed.value == value
    assert type(changed.value) is type(value)
