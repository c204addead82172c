"""Loading a plan: what is read once for all configs of a target, what is let in unasked, and what stays apart."""

# ruff: noqa: UP006, UP007, UP045 - the old forms are meant

import collections
import copy
import math
import sys
import typing
from typing import Any, Optional, Union

import annotation_corpus as corpus
import fiddle as fdl
import pydantic
import pytest
import tag_targets
from config_targets import Everything, Model, Optimizer, train
from fiddle import history

from nemo_airflow import Config
from nemo_airflow.config import plan as plans
from nemo_airflow.config.objects.buildable import unchecked
from nemo_airflow.config.types.adapters import adapter
from nemo_airflow.config.types.checks import check, fitting_types
from nemo_airflow.exceptions import (
    ConfigError,
    ParameterTypeError,
    PlanError,
    TargetNotAllowedError,
    UnknownParameterError,
)

ALLOW = ("config_targets.", "tag_targets.")
MODEL = "config_targets:Model"


def plan_of(root):
    return {"version": 1, "root": root}


def load(root):
    return plans.from_plan(plans.dumps(plan_of(root)), ALLOW)


def calls_in(work):
    """Returns how often each Python and C function was called in some work, by its name."""
    found = collections.Counter()

    def tick(frame, event, arg):
        if event == "call":
            found[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            found[arg.__qualname__] += 1

    sys.setprofile(tick)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


def stack_of(count):
    """Returns a node with that many configs in it, of two targets, in a list of their class and alone."""
    layer = {"_target_": "tag_targets:Layer", "width": 1, "share": 0.5, "name": None}
    return {"_target_": "tag_targets:Stack", "layers": [layer] * count, "last": layer}


def test_a_target_is_read_once_and_its_plain_values_are_let_in_unasked():
    load(stack_of(1))
    few, many = (calls_in(lambda count=count: load(stack_of(count))) for count in (10, 1_000))
    for calls, count in ((few, 10), (many, 1_000)):
        assert calls["Blank.fill"] == count + 2
        assert calls["parameters_of"] == 2
        assert calls["SchemaValidator.validate_python"] == 0
        assert calls["resolve"] == 2
    asked = calls_in(lambda: load([{"_target_": MODEL, "hidden": 1, "dropout": 0}]))
    assert asked["SchemaValidator.validate_python"] == 1  # an int, which pydantic has to say fits a float


def test_annotations_of_a_target_are_resolved_once(monkeypatch):
    def init(self, width: int = 0, name: str | None = None) -> None: ...

    fresh = type("Fresh", (), {"__init__": init, "__module__": tag_targets.__name__})
    monkeypatch.setattr(tag_targets, "Fresh", fresh, raising=False)
    root = [{"_target_": "tag_targets:Fresh", "width": 1, "name": "a"}] * 50
    first, again = (calls_in(lambda: load(root)) for _ in range(2))
    assert first["hints_of"] > again["hints_of"] == 0
    assert (first["_parameters"], again["_parameters"]) == (1, 0)
    assert (first["Parameters.fitting_types"], again["Parameters.fitting_types"]) == (1, 0)


NUMBERS = [0, -1, 2**70, 10**400, True, False, 0.5, math.nan, math.inf]
VALUES = [*NUMBERS, "", "1", "é", "{{ ds }}", None, [], [1], {}, {1: 2}]
ANNOTATIONS = [
    *(annotation for annotation, _, _ in corpus.ROWS),
    *(kind for kind in vars(corpus).values() if isinstance(kind, type)),
    *(bool, int, float, str, None, type(None), Any, object, complex, list, dict, list[int], typing.List),
    *(Optional[int], int | None, Optional[str], Union[bool, str], Union[int, list[int]], Union[float, None, str]),
    *(Optional[Any], typing.Annotated[int, pydantic.Field(gt=0)], typing.Literal[1, "1"]),
]  # fmt: skip


def test_what_is_let_in_unasked_is_what_pydantic_lets_in():
    unasked = collections.Counter()
    for annotation in ANNOTATIONS:
        fitting = fitting_types(annotation)
        for value in VALUES:
            if type(value) in fitting:
                unasked[type(value)] += 1
                if (found := adapter(annotation)) is not None:
                    found.validate_python(value, strict=True)
                assert check(annotation, value) is None
    assert set(unasked) == {bool, int, float, str, type(None), list, dict}
    assert int not in fitting_types(float)
    assert check(float, 10**400) is not None
    assert not fitting_types(typing.Annotated[int, pydantic.Field(gt=0)])


def test_config_of_the_very_class_is_what_pydantic_lets_in():
    classes = [kind for kind in [*vars(corpus).values(), Model, Optimizer] if isinstance(kind, type) and signed(kind)]
    assert len(classes) > 20
    for kind in classes:
        config = unchecked(kind)
        for annotation, value in [(kind, config), (Optional[kind], config), (list[kind], [config, config])]:
            if (found := adapter(annotation)) is not None:
                found.validate_python(value, strict=True)
            assert check(annotation, value) is None


def signed(kind):
    try:
        unchecked(kind)
    except (ValueError, TypeError):
        return False
    return True


@pytest.mark.parametrize(
    "value",
    [
        [Config(Model, 1), Config(Optimizer)],
        [Config(Model, 1), 3],
        [Config(Model, 1), None],
        [Config(Optimizer)],
        [fdl.Partial(Model, 1)],
        [[Config(Model, 1)]],
    ],
)
def test_list_with_anything_else_among_configs_is_refused(value):
    assert check(list[Model], value) is not None


@pytest.mark.parametrize("annotation", [Model, Optional[Model], list[Model]])
def test_partial_of_the_very_class_is_refused(annotation):
    assert check(annotation, fdl.Partial(Model, 1)) is not None
    assert check(annotation, [fdl.Partial(Model, 1)]) is not None


def test_errors_of_one_among_many_of_its_kind_have_its_path():
    fair = {"_target_": MODEL, "hidden": 1}

    def error_of(kind, node):
        with pytest.raises(kind) as caught:
            load([fair, fair, node, fair])
        return str(caught.value)

    assert error_of(ParameterTypeError, {**fair, "hidden": True}) == "2.hidden: expected int, got True"
    assert error_of(ParameterTypeError, {**fair, "hidden": None}) == "2.hidden: expected int, got None"
    assert error_of(ParameterTypeError, {**fair, "_args_": ["x"]}) == "2.0: expected int, got 'x'"
    assert error_of(UnknownParameterError, {**fair, "hiden": 1}).startswith("2.hiden: Model has no parameter 'hiden'")
    assert error_of(UnknownParameterError, {**fair, "_args_": [1, "relu", 0.5, 1]}).startswith(
        "2: Model does not take 4"
    )
    assert "2: target 'a.__init__:x' has a part" in error_of(PlanError, {"_target_": "a.__init__:x", "hidden": 1})
    assert "2: target 3 is not of the form" in error_of(PlanError, {"_target_": 3, "hidden": 1})
    assert "2: target 'os:system' is not allowed" in error_of(
        TargetNotAllowedError, {"_target_": "os:system", "hidden": 1}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1e999", "1.hidden: inf is not JSON"),
        ("-1e999", "1.hidden: -inf is not JSON"),
        ("NaN", "NaN is not JSON"),
        ('"\\ud800"', "1.hidden: '\\ud800' is not valid Unicode"),
        ('{"_x_": 1}', "1.hidden: '_x_': not a form of node"),
        ('{"a": 1, "a": 1}', "the key 'a' is given twice"),
        ('1, "hidden": 1', "the key 'hidden' is given twice"),
    ],
)
def test_value_that_is_no_json_is_refused_among_nodes_of_the_same_keys(text, message):
    node = '{"_target_":"config_targets:Model","hidden":VALUE}'
    nodes = f"{node.replace('VALUE', '1')},{node.replace('VALUE', text)}"
    with pytest.raises(PlanError) as caught:
        plans.from_plan(f'{{"version":1,"root":[{nodes}]}}', ALLOW)
    assert message in str(caught.value)


def test_leaf_of_a_config_below_the_limit_of_depth_is_refused():
    def deep(levels):
        node = {"_target_": MODEL, "hidden": 1}
        for _ in range(levels):
            node = [node]
        return plan_of(node)

    plans.from_plan(deep(199), ALLOW)
    with pytest.raises(PlanError, match=r"^0\.0\..*\.hidden: nested deeper than 200 levels"):
        plans.from_plan(deep(200), ALLOW)


def test_name_with_letters_of_any_alphabet_is_a_target():
    with pytest.raises(ConfigError, match="has no 'Größe'"):
        load({"_target_": "config_targets:Größe", "hidden": 1})


def test_configs_of_one_target_share_nothing_that_may_change():
    node = {"_target_": "tag_targets:Layer", "width": 1}
    first, second = load([node, node])
    later = load(node)
    first.width = 2
    fdl.add_tag(first, "rate", tag_targets.Slow)
    del first.width
    for other in (second, later, load(node)):
        assert other.width == 1
        assert [entry.new_value for entry in other.__argument_history__["__fn_or_cls__"]] == [tag_targets.Layer]
        assert not other.__argument_history__.get("width")
        assert fdl.get_tags(other, "rate") == {tag_targets.Rate}
        assert [entry.kind for entry in other.__argument_history__["rate"]] == [history.ChangeKind.UPDATE_TAGS]
        assert other == copy.deepcopy(other) == Config(tag_targets.Layer, 1)
    assert fdl.get_tags(first, "rate") == {tag_targets.Rate, tag_targets.Slow}


def test_plan_is_not_changed_by_what_was_made_of_it():
    root = {
        "_target_": "config_targets:Everything",
        "value": {"a": [1]},
        "other": [{"_target_": "config_targets:Everything", "value": [1], "other": {"b": 2}}],
    }
    plan = plan_of(copy.deepcopy(root))
    config = plans.from_plan(plan, ALLOW)
    config.value["a"].append(2)
    config.other[0].other["b"] = 3
    config.other[0].value = None
    config.other.append(Config(Everything))
    assert plan == plan_of(root)


def test_arguments_by_position_and_by_name_are_in_the_order_of_the_call():
    config = load({"_target_": "config_targets:positional", "_args_": [1, "c", 0.5, 1.5], "flag": True, "more": 7})
    assert config.__arguments__ == {0: 1, "b": "c", 2: 0.5, 3: 1.5, "flag": True, "more": 7}
    assert fdl.build(config) == (1, "c", (0.5, 1.5), True, {"more": 7})


def test_values_between_plain_ones_are_read_as_their_annotations_want_them():
    data = {"_target_": "config_targets:Data", "path": "/x", "seed": 3}
    config = load({"_target_": "config_targets:train", "model": {"_target_": MODEL, "hidden": 1}, "data": data})
    assert str(config.data.path) == "/x"
    assert type(config.data.path).__name__.endswith("Path")
    assert config == Config(train, model=Config(Model, hidden=1), data=config.data)
