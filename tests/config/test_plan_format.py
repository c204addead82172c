"""A config as a plan: what is written, what is read back, and what is refused."""

import datetime
import decimal
import json
import math
import os
import subprocess
import sys
import uuid
from pathlib import Path

import fiddle as fdl
import pytest
from config_targets import (
    Color,
    Data,
    Everything,
    Experiment,
    Model,
    Optimizer,
    Point,
    apply,
    collect,
    counter,
    double,
    identity,
    positional,
    train,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_airflow import Config, Partial, Script
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import (
    ConfigError,
    MissingParameterError,
    ParameterTypeError,
    PlanError,
    TargetNotAllowedError,
    TargetNotImportableError,
    UnknownParameterError,
)
from nemo_airflow.language import errors
from nemo_airflow.runner import plan as runner

ALLOW = ("config_targets.",)


def error_of(make, kind=PlanError):
    with pytest.raises(kind) as caught:
        make()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def root_of(config, **options):
    return plans.to_plan(config, **options)["root"]


def test_plan_has_targets_arguments_and_defaults():
    config = Config(train, model=Config(Model, hidden=3), callback=Partial(double, 1))
    assert plans.to_plan(config) == {
        "version": 1,
        "root": {
            "_target_": "config_targets:train",
            "model": {"_target_": "config_targets:Model", "hidden": 3, "activation": "relu", "dropout": 0.0},
            "optimizer": None,
            "epochs": 1,
            "callback": {"_target_": "config_targets:double", "_partial_": True, "x": 1},
            "names": None,
            "start": None,
            "data": None,
        },
    }


def test_defaults_that_dataclasses_make_are_written_with_theirs():
    assert root_of(Config(Data)) == {
        "_target_": "config_targets:Data",
        "path": {"_path_": "/data"},
        "optimizer": {
            "_target_": "config_targets:Optimizer",
            "lr": 1e-3,
            "color": {"_enum_": "config_targets:Color.RED"},
            "betas": {"_tuple_": [0.9, 0.99]},
            "layers": [],
        },
        "seed": None,
    }
    assert root_of(Config(Data), defaults=False) == {"_target_": "config_targets:Data"}


def test_arguments_without_a_name_are_written_in_order():
    assert root_of(Config(positional, 1, "x", 2.0, 3.0, flag=True, k=1)) == {
        "_target_": "config_targets:positional",
        "_args_": [1, "x", 2.0, 3.0],
        "flag": True,
        "k": 1,
    }
    assert root_of(Config(positional, 1))["_args_"] == [1]
    assert root_of(Config(positional, 1))["b"] == "b"


def test_shared_values_are_numbered_in_the_order_of_parameters():
    shared, model = [1], Config(Model, hidden=1)
    node = root_of(Config(collect, item=[shared, model], tail=[model, shared]))
    assert node["item"] == [{"_id_": "1", "_value_": [1]}, {**root_of(model), "_id_": "2"}]
    assert node["tail"] == [{"_same_": "2"}, {"_same_": "1"}]


def test_config_class_is_written_as_a_record():
    node = root_of(Experiment(name="a"))
    assert node == {"_target_": "nemo_airflow.language.record:Record", "name": "a", "lr": 1e-3}


def test_script_is_written_as_a_partial_of_the_runners_own_function():
    node = root_of(Script(path="train.sh", args=["--x"]))
    assert (node["_target_"], node["_partial_"]) == ("nemo_airflow.runner.script:run", True)
    assert (node["path"], node["args"], node["entrypoint"]) == ("train.sh", ["--x"], "bash")


VALUES = [
    None, True, 0, -1, 10**30, 1.5, -0.0, math.inf, -math.inf, "", "text", "\u2028\U0001f600\x00", b"\x00\xff", (),
    (1, (2,)), [], {}, {"a": 1}, {"_target_": 1}, {1: "a", None: "b", (1, 2): "c"}, {"__x__": 1, "_": 2},
    {1, 2}, frozenset({"b", "a"}), Path("/a/b"), Color.RED, {Color.RED: Color.BLUE}, Point(1, 2),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6), datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    datetime.date(2026, 1, 2), datetime.time(1, 2, 3), datetime.timedelta(days=-1, microseconds=1),
    decimal.Decimal("1.10"), Optimizer(lr=2.0), Model, double, Model.small, Model.width, len, math.sqrt, dict,
]  # fmt: skip


# Not by repr: a set has no order and a function an address, and all processes have to name a case alike.
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_value_comes_back_from_the_job_and_from_the_plan(value):
    plan = plans.loads(plans.dumps(plans.to_plan(Config(Everything, value=value))))
    allow = (*ALLOW, *plans.targets(plan))
    built = runner.build(plan, allow)
    assert built.value == value
    assert type(built.value) is type(value)
    assert plans.digest(plans.to_plan(plans.from_plan(plan, allow))) == plans.digest(plan)


def test_nan_comes_back():
    assert math.isnan(runner.build(plans.to_plan([math.nan]))[0])


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.dates(),
    st.datetimes(), st.times(), st.timedeltas(), st.decimals(allow_nan=False), st.sampled_from(Color),
)  # fmt: skip
hashables = st.one_of(st.integers(), st.text(), st.tuples(st.integers(), st.text()), st.sampled_from(Color))


def grown(inner):
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=4), inner, max_size=3),
        st.dictionaries(hashables, inner, max_size=3),
        st.sets(hashables, max_size=3),
        st.builds(lambda value, other: Config(Everything, value=value, other=other), inner, inner),
        st.builds(lambda value: Config(collect, value, value), inner),
        st.builds(lambda value: Config(identity, value), inner),
    )


graphs = st.recursive(scalars, grown, max_leaves=12)


@given(graphs)
@settings(max_examples=200, deadline=None)
def test_plan_builds_what_fiddle_builds(value):
    config = Config(collect, value, value)
    plan = plans.to_plan(config)
    text = plans.dumps(plan)
    loaded = plans.loads(text)
    assert plans.dumps(loaded) == text
    expected = fdl.build(config)
    for built in (runner.build(plan, ALLOW), runner.build(loaded, ALLOW), fdl.build(plans.from_plan(loaded, ALLOW))):
        assert built == expected
        if isinstance(value, (list, dict, set, fdl.Buildable)):
            assert (built[0] is built[1]) is (expected[0] is expected[1])
    # Not the text of the plan itself: which of two places holds a shared value follows the order of keys.
    again = plans.from_plan(plan, ALLOW)
    assert plans.to_plan(again) == plan
    assert set(plans.flatten(loaded)) == set(plans.flatten(plan))


RESERVED = [
    f"_{name}_" for name in ("target", "id", "same", "value", "tuple", "args", "dict", "float", "partial", "set")
]
plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())
keys = st.one_of(st.text(), st.sampled_from(RESERVED))
nodes = st.recursive(plain, lambda inner: st.one_of(st.lists(inner), st.dictionaries(keys, inner)))


@given(nodes)
@settings(max_examples=300, deadline=None)
def test_any_json_is_either_a_plan_or_refused_by_us(node):
    text = json.dumps({"version": 1, "root": node})
    refusal = ""
    try:
        plan = plans.loads(text)
        runner.build(plan)
        plans.flatten(plan)
    except (PlanError, errors.PlanError) as error:
        refusal = str(error)
    assert "\n" not in refusal


DIGEST = """
import sys
from config_targets import *
from nemo_airflow import Config
from nemo_airflow.config import plan
names = {f"name {i}": [i] for i in range(5)}
value = [{f"member {i}" for i in range(50)}, {Color.RED, Color.BLUE}, frozenset({1, "a", None}), double, names, names]
members = [Silent(2), Silent(1), Silent(3)]
value.append([frozenset(members), *members])
print(plan.digest(plan.to_plan(Config(train, model=Config(Model, hidden=3), names=names))),
      plan.digest(plan.to_plan(Config(Everything, value))))
"""


def test_digest_is_the_same_in_other_processes():
    folder = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONPATH": folder, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(digests) == 1
    assert len(digests.pop().split()[0]) == 64


def test_reading_a_plan_needs_neither_fiddle_nor_pydantic():
    code = (
        'import sys; from nemo_airflow.config import plan; p = plan.loads(\'{"version":1,"root":{"_target_":"a:b"}}\');'
        "plan.digest(p), plan.flatten(p), plan.targets(p);"
        "assert not {'fiddle', 'pydantic', 'airflow', 'yaml', 'a'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Opaque(), "value.a: a plan cannot hold a value of type test_plan_format.Opaque: use Config(Opaque, ...)"),
        (1j, "value.a: a plan cannot hold a value of type complex"),
        (uuid.UUID(int=1), "value.a: a plan cannot hold a value of type uuid.UUID"),
        (sys, "value.a: a plan cannot hold a value of type module"),
        ("\ud800", "value.a: the text is not valid Unicode: pass it as bytes"),
    ],
)
def test_value_that_a_plan_cannot_hold_is_refused_with_its_path(value, message):
    assert message in error_of(lambda: plans.to_plan(Config(Everything, value={"a": value})))


def test_function_that_a_job_cannot_import_is_refused_with_its_path():
    config = Config(Everything, value=[{"a": lambda: 1}])
    assert error_of(lambda: plans.to_plan(config), TargetNotImportableError).startswith(
        "value.0.a: a job cannot import a lambda"
    )


def test_default_that_a_plan_cannot_hold_is_left_out():
    assert "fn" not in root_of(Partial(apply), check=False)
    assert root_of(Config(with_odd_default)) == {"_target_": "test_plan_format:with_odd_default", "b": 2}


def with_odd_default(a=Opaque(), b=2, c=len):  # noqa: B008 - that is what is odd
    return a, b, c


def test_template_is_refused_unless_unchecked():
    config = Config(Model, hidden="{{ x }}")
    assert "was not rendered" in error_of(lambda: plans.to_plan(config), ConfigError)
    assert root_of(config, check=False)["hidden"] == "{{ x }}"


def test_missing_parameter_is_refused_unless_unchecked():
    with pytest.raises(MissingParameterError):
        plans.to_plan(Config(Model))
    assert root_of(Config(Model), check=False) == {
        "_target_": "config_targets:Model",
        "activation": "relu",
        "dropout": 0.0,
    }


def test_cycle_is_refused():
    loop = []
    loop.append({"a": loop})
    assert "contains itself" in error_of(lambda: plans.to_plan(loop, check=False))


def nested(count, opening, closing, middle="1"):
    return '{"version":1,"root":' + opening * count + middle + closing * count + "}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the plan is not JSON"),
        ("[]", "a plan has the keys"),
        ('{"version":1}', "a plan has the keys"),
        ('{"version":1,"root":1,"more":1}', "a plan has the keys"),
        ('{"version":2,"root":1}', "plan version 2"),
        ('{"version":true,"root":1}', "plan version True"),
        ('{"version":1,"root":NaN}', "NaN is not JSON"),
        ('{"version":1,"root":1e999}', "inf is not JSON"),
        ('{"version":1,"root":' + "9" * 5000 + "}", "cannot be read"),
        ('{"version":1,"root":{"a":1,"a":2}}', "'a' is given twice"),
        ('{"version":1,"root":"\\ud800"}', "not valid Unicode"),
        ('{"version":1,"root":{"a":{"_x_":1}}}', "a: '_x_': not a form of node that a plan has"),
        ('{"version":1,"root":{"_id_":"1"}}', "not a form"),
        ('{"version":1,"root":{"_tuple_":1}}', "_tuple_ takes a list"),
        ('{"version":1,"root":{"_dict_":[[1]]}}', "pairs"),
        ('{"version":1,"root":[{"_dict_":[[{"_tuple_":[[]]},1]]}]}', None),
        ('{"version":1,"root":{"_bytes_":"*"}}', "is not a valid value of _bytes_"),
        ('{"version":1,"root":{"_float_":"1"}}', "is not a valid value of _float_"),
        ('{"version":1,"root":{"_date_":"soon"}}', "is not a valid value of _date_"),
        ('{"version":1,"root":{"_timedelta_":1e300}}', "is not a valid value of _timedelta_"),
        ('{"version":1,"root":{"_timedelta_":true}}', "is not a valid value of _timedelta_"),
        ('{"version":1,"root":{"_decimal_":"x"}}', "is not a valid value of _decimal_"),
        ('{"version":1,"root":{"_target_":"os.system"}}', "is not of the form 'package.module:name'"),
        ('{"version":1,"root":{"_target_":3}}', "is not of the form"),
        ('{"version":1,"root":{"_target_":"a:b","_x_":1}}', "'_x_' is neither the name of a parameter"),
        ('{"version":1,"root":{"_target_":"a:b","_args_":1}}', "_args_ is not a list"),
        ('{"version":1,"root":{"_target_":"a:b","_partial_":false}}', "_partial_"),
        ('{"version":1,"root":{"_target_":"a:b.__class__"}}', "double underscores"),
        ('{"version":1,"root":{"_target_":"__main__:b"}}', "double underscores"),
        ('{"version":1,"root":{"_target_":"a:b()"}}', "is not of the form"),
        ('{"version":1,"root":{"_ref_":"..a:b"}}', "is not of the form"),
        ('{"version":1,"root":{"_enum_":"a:b"}}', "is not of the form 'package.module:Class.MEMBER'"),
        ('{"version":1,"root":{"_same_":"1"}}', "refers to an _id_ that"),
        ('{"version":1,"root":[{"_id_":"1","_value_":1},{"_id_":"1","_value_":1}]}', "given twice"),
        ('{"version":1,"root":{"_id_":"1","_value_":[{"_same_":"1"}]}}', "contains itself"),
        (nested(1, "[", "]", '{"_id_":"1","_value_":{"_same_":"2"}},{"_id_":"2","_value_":{"_same_":"1"}}'), "itself"),
        (nested(201, "[", "]"), "nested deeper than 200 levels"),
        (nested(100_000, "[", "]"), "nested deeper than 200 levels"),
        (nested(100_000, '{"a":', "}"), "nested deeper than 200 levels"),
        (b"\xff", "UTF-8"),
    ],
)  # fmt: skip
def test_text_that_is_no_plan_is_refused(text, message):
    if message is None:
        plans.loads(text)
    else:
        assert message in error_of(lambda: plans.loads(text))


def test_chain_of_shared_nodes_is_built_from_its_end():
    links = [{"_id_": str(i), "_value_": [{"_same_": str(i + 1)}]} for i in range(198)]
    plan = {"version": 1, "root": [*links, {"_id_": "198", "_value_": []}]}
    plans.loads(plans.dumps(plan))
    built = runner.build(plan)
    assert built[0][0] is built[1]
    assert built[196][0][0] is built[198]


def test_flat_form_names_leaves_targets_and_what_is_shared():
    model = Config(Model, hidden=3)
    config = Config(Everything, value={"m": model, "path": Path("/x"), "list": [1, None], "empty": []}, other=model)
    flat = plans.flatten(plans.to_plan(config))
    assert flat == {
        "_target_": "config_targets:Everything",
        "value.m": "config_targets:Model",
        "value.m.hidden": "3",
        "value.m.activation": "relu",
        "value.m.dropout": "0.0",
        "value.path": "/x",
        "value.list.0": "1",
        "value.list.1": "null",
        "value.empty": "[]",
        "other": "same as value.m",
    }
    odd = plans.flatten(plans.to_plan({"a b": Color.RED, "n": {1: True}, "t": (double, 1)}))
    assert (
        odd == {"['a b']": "RED", "n.1": "true", "n.0": "1", "t.0": "config_targets:double", "t.1": "1"}
        or odd["n.1"] == "true"
    )


def test_targets_are_listed_once_and_sorted():
    plan = plans.to_plan(Config(Everything, value=[Color.RED, Color.BLUE, double, Config(Model, 1), Config(Model, 2)]))
    assert plans.targets(plan) == (
        "config_targets:Color",
        "config_targets:Everything",
        "config_targets:Model",
        "config_targets:double",
    )


def test_config_from_a_plan_is_checked():
    def read(**arguments):
        return plans.from_plan({"version": 1, "root": [{"_target_": "config_targets:Model", **arguments}]}, ALLOW)

    assert read(hidden=1) == [Config(Model, hidden=1)]
    assert error_of(lambda: read(hidden="x"), ParameterTypeError) == "0.hidden: expected int, got 'x'"
    assert error_of(lambda: read(hiden=1), UnknownParameterError).startswith(
        "0.hiden: Model has no parameter 'hiden'; did you mean"
    )
    assert read(hidden=1, _partial_=True) == [Partial(Model, hidden=1)]


def test_config_from_a_plan_imports_what_is_allowed_only():
    plan = {"version": 1, "root": {"_target_": "antigravity:fly"}}
    message = error_of(lambda: plans.from_plan(plan, ALLOW), TargetNotAllowedError)
    assert "'antigravity:fly' is not allowed here: add it, or its package as 'antigravity.', to allow" in message
    assert "antigravity" not in sys.modules
    missing = {"version": 1, "root": {"_target_": "config_targets:Nothing"}}
    assert "has no 'Nothing'" in error_of(lambda: plans.from_plan(missing, ALLOW), TargetNotImportableError)


def test_argument_factories_are_made_at_each_call():
    config = Partial(apply, fn=Partial(identity, value={"a": [fdl.ArgFactory(counter)]}), extra=1)
    built = runner.build(plans.loads(plans.dumps(plans.to_plan(config))), ALLOW)
    first, second = built()
    assert first == second == {"a": [[]]}
    assert first["a"][0] is not second["a"][0]
    refused = plans.to_plan(Config(identity, value=[fdl.ArgFactory(counter)]), check=False)
    with pytest.raises(errors.PlanError, match="only be an argument of a partial"):
        runner.build(refused, ALLOW)


def test_record_has_the_fields_as_attributes():
    built = runner.build(plans.to_plan(Experiment(name="a")))
    assert (built.name, built.lr) == ("a", 1e-3)
    assert built == fdl.build(Experiment(name="a"))
    assert built != runner.build(plans.to_plan(Experiment(name="b")))
