"""Configs as YAML: both ways, and what is refused with its line."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from config_targets import (
    Color,
    Data,
    Experiment,
    Level,
    Model,
    Optimizer,
    Quality,
    collect,
    double,
    identity,
    positional,
    train,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_airflow import Config, Partial
from nemo_airflow.config import from_yaml, plan_from_yaml, to_yaml
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import ParameterTypeError, PlanError, TargetNotAllowedError

ALLOW = ("config_targets.",)


def error_of(make, kind=PlanError):
    with pytest.raises(kind) as caught:
        make()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_yaml_has_what_the_author_wrote_with_the_fields_own_keys():
    config = Config(train, model=Config(Model, hidden=3), callback=Partial(double))
    assert to_yaml(config) == (
        "_target_: config_targets.train\n"
        "model:\n  _target_: config_targets.Model\n  hidden: 3\n"
        "callback:\n  _target_: config_targets.double\n  _partial_: true\n"
    )


def test_file_as_others_write_it_is_read(tmp_path):
    text = """
_target_: config_targets.train
model: {_target_: config_targets.Model.small, hidden: 3}
optimizer:
  _target_: config_targets:Optimizer
  color: BLUE        # a member's name
  betas: [0.5, 1]    # a list for a tuple
  lr: 3e-4
start: 2026-01-02
callback: {_target_: config_targets.double, _partial_: true}
data:
  _target_: config_targets.Data
  _partial_: false
  path: /data/x
  optimizer: {_target_: config_targets.Optimizer, color: r}
"""
    config = from_yaml(text, ALLOW)
    assert config.model == Config(Model.small, hidden=3)
    assert config.optimizer == Config(Optimizer, color=Color.BLUE, betas=(0.5, 1.0), lr=3e-4)
    assert config.start.isoformat() == "2026-01-02"
    assert config.callback == Partial(double)
    assert config.data == Config(Data, path=Path("/data/x"), optimizer=Config(Optimizer, color=Color.RED))
    (tmp_path / "train.yaml").write_text(text)
    assert from_yaml(tmp_path / "train.yaml", ALLOW) == config
    assert from_yaml(str(tmp_path / "train.yaml"), ALLOW) == config


CONFIGS = [
    Config(train, model=Config(Model, hidden=3), names={"a b": [1]}),
    Partial(positional, 1, "x", 2.0, flag=True, k=3),
    Experiment(name="{{ ds }}"),
    Config(
        identity,
        value=["3e-4", "yes", "no", "2026-01-01", "null", "~", "", " a", "1_0", "0x1", "a: b", "- c", "a\nb\n"],
    ),
    Config(
        identity,
        value=[1e20, 1e-7, -0.0, math.inf, 10**30, b"\x00", (1,), {1, 2}, {1: 2}, Path("/x"), Color.RED, Model],
    ),
    [Config(Model, hidden=1)],
    "text",
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_config_comes_back(config):
    text = to_yaml(config)
    again = from_yaml(text, (*ALLOW, "nemo_airflow.language.record."))
    assert plans.to_plan(again, check=False) == plans.to_plan(config, check=False)


def test_sharing_is_kept_by_anchors():
    model, names = Config(Model, hidden=1), {"a": [1]}
    config = Config(collect, [model, names], [model, names, model])
    text = to_yaml(config)
    assert text.count("&") == 2
    again = from_yaml(text, ALLOW)
    assert again.item[0] is again.tail[0] is again.tail[2]
    assert again.item[1] is again.tail[1]
    assert plans.to_plan(again) == plans.to_plan(config)


plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
values = st.recursive(plain, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)), max_leaves=10)


@given(values)
@settings(max_examples=200, deadline=None)
def test_any_plain_value_comes_back(value):
    config = Config(identity, value=value)
    text = to_yaml(config)
    assert from_yaml(text, ALLOW).value == value
    # Readers of YAML 1.1 see no other types than we do.
    assert yaml.safe_load(to_yaml(str(value))) == str(value)


@given(st.text(alphabet="ab:-{}[]&*!|>'\"\n #1.,?%@`~<", max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_by_us(text):
    refusal = ""
    try:
        plan_from_yaml(text + "\n")
    except PlanError as error:
        refusal = str(error)
    assert "\n" not in refusal


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the YAML document is empty"),
        ("a: 1\nb: ]\n", "line 2: not YAML"),
        ("a: 1\n---\nb: 2\n", "line 2: a second YAML document"),
        (
            "a:\n  - !!python/object/apply:os.system [ls]\n",
            "line 2: the YAML tag 'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
        ("a: !local 3\n", "line 1: the YAML tag '!local' is not allowed"),
        ("a: !!binary aGk=\n", "line 1: the YAML tag"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is given twice"),
        ("? [1]\n: 2\n", "line 1: a key has to be a scalar, not a list or mapping"),
        ("a: *b\n", "line 1: the alias *b has no anchor before it"),
        ("a: &b [*b]\n", "line 1: the alias *b refers to a node that contains it"),
        ("b: &b {x: 1}\na:\n  <<: *b\n", "line 3: merge keys (<<) are not supported"),
        ("\n" + "[" * 601 + "]" * 601, "line 2: nested deeper than 200 levels"),
        ("- " * 30_000 + "x", "nested deeper than 200 levels"),
        (BOMB, "values once the aliases are replaced"),
        ("a: " + "9" * 5000 + "\n", "line 1: the integer has more than"),
        ("_target_: train\n", "target 'train' is not of the form 'package.module:name'"),
        ("x:\n  _target_: a.b\n  _other_: 1\n", "x: '_other_' is neither the name of a parameter nor a key of plans"),
        ("_id_: '1'\n_value_: 1\n", "_id_ is reserved for plans: in YAML, share a value with an anchor"),
        ("a: '\\ud800'\nb: \"\\ud800\"\n", ""),
    ],
)
def test_file_that_is_no_plan_is_refused_with_its_line(text, message):
    assert message in error_of(lambda: plan_from_yaml(text))


def test_file_that_cannot_be_read_is_named(tmp_path):
    assert error_of(lambda: from_yaml(tmp_path / "none.yaml")).endswith("none.yaml: No such file or directory")
    (tmp_path / "bad.yaml").write_text("a: 1\nb: *\n")
    assert "bad.yaml: line 2: not YAML" in error_of(lambda: from_yaml(tmp_path / "bad.yaml"))


def test_reading_a_plan_imports_nothing_of_it():
    code = (
        "import sys; from nemo_airflow.config import plan_from_yaml;"
        "p = plan_from_yaml('_target_: antigravity.fly\\nx: {_target_: pkg.mod.Class.method}\\n');"
        "assert p['root']['_target_'] == 'antigravity:fly' and p['root']['x']['_target_'] == 'pkg.mod:Class.method';"
        "assert not {'antigravity', 'fiddle', 'airflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_nothing_is_imported_unless_allowed():
    assert "'antigravity:fly' is not allowed" in error_of(
        lambda: from_yaml("_target_: antigravity.fly\n"), TargetNotAllowedError
    )
    assert "antigravity" not in sys.modules


def test_values_are_checked_with_their_paths():
    text = "- _target_: config_targets.train\n  model: {_target_: config_targets.Model, hidden: '3'}\n"
    assert error_of(lambda: from_yaml(text, ALLOW), ParameterTypeError) == "0.model.hidden: expected int, got '3'"


@pytest.mark.parametrize(
    ("text", "member"),
    [
        ("level: OFF", Level.OFF),
        ("level: ON", Level.ON),
        ("level: 0", Level.OFF),
        ("quality: NONE", Quality.NONE),
        ("quality: ''", Quality.NONE),
        ("quality: BEST", Quality.BEST),
    ],
)
def test_a_member_of_an_enum_is_read_by_its_name_whatever_its_value(text, member):
    config = from_yaml(f"_target_: config_targets.leveled\n{text}\n", allow=["config_targets."])
    (found,) = config.__arguments__.values()
    assert found is member
