"""Every form of annotation, at each step at which a value is checked; and the hooks of classes."""

import concurrent.futures
import copy
import datetime as dt
import pickle
import sys
import threading
import typing as t
import warnings

import annotated_types as at
import annotation_corpus as corpus
import hypothesis
import hypothesis.strategies as st
import model_targets as models
import pytest

from nemo_airflow import Config, Partial
from nemo_airflow.cli import main
from nemo_airflow.config import apply_overrides, build, form_fields, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.config.objects.buildable import unchecked
from nemo_airflow.config.types.checks import MisfitError, check, read_value
from nemo_airflow.exceptions import ConfigError, ParameterTypeError, PlanError, UnknownParameterError

GOOD = [(n, value) for n, (_, good, _) in enumerate(corpus.ROWS) for value in good]
BAD = [(n, value) for n, (_, _, bad) in enumerate(corpus.ROWS) for value in bad]


@pytest.mark.parametrize(("number", "value"), GOOD)
def test_fitting_value_passes_each_step(number, value):
    target = corpus.target_of(number)
    config = Config(target, value=value)
    config.value = value
    validate(config)
    assert build(config) is value or build(config) == value
    assert apply_overrides(Config(target), {"value": value}).value is value
    Config(target, value=Config(models.takes_any, value=value))  # of which it is not known what it returns
    Config(target, value="{{ ds }}")  # what is yet to come fits everywhere
    try:
        plan = plans.to_plan(config)
    except PlanError:
        return  # of a type that no plan can hold
    assert plans.digest(plans.to_plan(plans.from_plan(plan, allow=plans.targets(plan)))) == plans.digest(plan)


@pytest.mark.parametrize(("number", "value"), BAD)
def test_value_that_does_not_fit_is_refused_at_each_step(number, value):
    target = corpus.target_of(number)
    with pytest.raises(ParameterTypeError) as caught:
        Config(target, value=value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"target_{number}.value")
    config = Config(target)
    with pytest.raises(ParameterTypeError):
        config.value = value
    past = unchecked(models.takes_any, {"value": [unchecked(target, {"value": value})]})
    for step in (validate, build):
        with pytest.raises(ParameterTypeError, match=r"^value\.0\.value"):
            step(past)
    try:  # an override converts, but never to what does not fit
        changed = apply_overrides(config, {"value": value}).value
    except ConfigError:
        return
    assert check(corpus.ROWS[number][0], changed) is None


def error_of(make, kind=ConfigError):
    with pytest.raises(kind) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(models.M, x="a"), "M.x: expected int, got 'a'"),
        (lambda: Config(models.M, x=-1), "M.x: input should be greater than 0, got -1"),
        (lambda: Config(models.M, x=1, theAl="x"), "M.theAl: expected float, got 'x'"),
        (lambda: validate(Config(models.Outer, m=Config(models.M, x=11))), "m: too big"),
        (lambda: Config(models.A, x=1, y=["a"]), "A.y.0: expected int, got 'a'"),
        (lambda: Config(models.fkw, 1, a="x"), "fkw.a: expected int, got 'x'"),
        (lambda: validate(Config(models.fkw, 1)), "a: fkw requires this parameter, and it is not set"),
        (lambda: Config(models.D, x=1, me=3), "D.me: expected D, got 3"),
        (lambda: validate([models.Point("x")]), "0.x: expected int, got 'x'"),
        (lambda: validate(Config(models.Plain, n=-1)), "n is below zero"),
        (lambda: validate([Config(models.Aloud, "exit")]), "0: validate() failed: stop"),
        (lambda: validate([Config(models.Aloud, "key")]), "0: validate() failed: 'absent'"),
        (lambda: validate([Config(models.Aloud, "false")]), "0: validate() returned False"),
        (lambda: validate([Config(models.Aloud, "later")]), "0: validate() is a coroutine"),
        (lambda: Config(models.takes_any, node={"children": [{"children": 3}]}), "takes_any.node.children.0.children"),
    ],
)
def test_error_names_the_place_and_the_reason(make, message):
    assert message in error_of(make)


@pytest.mark.parametrize(
    ("annotation", "text", "keys", "message"),
    [
        (t.Annotated[float, at.Lt(1)], "10", (), "input should be less than 1, got 10.0"),
        (t.Annotated[dt.date, at.Lt(dt.date(2026, 1, 1))], "2026-02-01", (), "date(2026, 1, 1), got 2026-02-01"),
        (models.M, "{x: -1}", (), "expected M, got '{x: -1}'"),
        (dict[str, int], "{a: 1, b: x}", ("b",), "expected int, got 'x'"),
        (float, "fast", (), "expected float, got 'fast'"),
    ],
)
def test_text_that_does_not_fit_is_refused_with_the_reason_of_what_it_means(annotation, text, keys, message):
    with pytest.raises(MisfitError) as caught:
        read_value(annotation, text)
    assert caught.value.misfit.keys == keys
    assert message in caught.value.misfit.message


def test_key_that_a_typed_dict_lacks_or_does_not_know_is_named():
    assert check(corpus.Total, {"b": "x"}).message.endswith(", which lacks 'a'")
    misfit = check(list[corpus.Partial_], [{"a": 1, "bb": {}}])
    assert (misfit.keys, misfit.message.partition(", with ")[2]) == (
        (0,),
        "the unknown key 'bb'; did you mean 'b'? valid: a, b",
    )


def test_unknown_name_is_refused_where_keyword_arguments_are_a_typed_dict():
    assert "no parameter 'c'" in error_of(lambda: Config(models.fkw, 1, c=1), UnknownParameterError)
    assert build(Config(models.fkw, 1, a=1)) == (1, {"a": 1})


def test_partial_is_refused_where_it_takes_too_few_arguments():
    Config(models.takes_any, on=Partial(models.takes_m))
    assert "does not take 1 positional argument" in error_of(lambda: Config(models.takes_any, on=Partial(corpus.f0)))


@pytest.mark.parametrize("arguments", [["plan"], ["render"]])
def test_hook_that_prints_leaves_what_a_command_prints_alone(arguments, capsys, monkeypatch):
    monkeypatch.setattr(models, "aloud", Config(models.Aloud, "good"), raising=False)
    assert main([arguments[0], "model_targets:aloud", *arguments[1:]]) == 0
    printed, said = capsys.readouterr()
    assert "model_targets" in printed
    assert "heard" not in printed
    assert "heard" in said


def test_threads_that_validate_at_once_leave_the_output_and_the_warnings_as_they_are(monkeypatch):
    output, filters = sys.stdout, list(warnings.filters)
    is_first_in, is_second_in, is_first_out = threading.Event(), threading.Event(), threading.Event()

    class First:
        @classmethod
        def __get_pydantic_core_schema__(cls, source, handler):
            is_first_in.set()
            is_second_in.wait(0.3)
            return handler(int)

    class Second:
        @classmethod
        def __get_pydantic_core_schema__(cls, source, handler):
            is_second_in.set()
            is_first_out.wait(5)
            return handler(int)

    def wait_in_hook():
        is_first_in.set()
        return is_second_in.wait(5)

    def follow_in_hook():
        is_second_in.set()
        return is_first_out.wait(5)

    monkeypatch.setitem(models.hooks, "first", wait_in_hook)
    monkeypatch.setitem(models.hooks, "second", follow_in_hook)
    for first, second in (
        (lambda: check(list[First], [1]), lambda: check(list[Second], [1])),
        (lambda: validate(Config(models.Aloud, "first")), lambda: validate(Config(models.Aloud, "second"))),
    ):
        for event in (is_first_in, is_second_in, is_first_out):
            event.clear()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            earlier = pool.submit(first)
            assert is_first_in.wait(5)
            later = pool.submit(second)
            earlier.result()
            is_first_out.set()
            later.result()
    assert sys.stdout is output
    assert warnings.filters == filters


def test_method_of_a_plain_class_is_no_hook():
    validate(Config(models.Trainer))


def test_model_takes_what_it_converts_and_a_function_does_not():
    assert build(Config(models.Outer, m={"x": 3})).m.x == 3
    assert error_of(lambda: Config(models.takes_m, {"x": 3})) == "takes_m.m: expected M, got {'x': 3}"


def test_copies_and_pickles_of_a_config_are_equal_and_checked():
    config = Config(models.Outer, m=Config(models.M, x=3, tags=["a"]))
    for other in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other == config
        assert "expected int" in error_of(lambda other=other: setattr(other.m, "x", "a"))


def test_fields_of_a_form_have_help_choices_and_ranges():
    fields = form_fields(Config(models.Fields))
    assert fields["gap"].description == "Between two steps."
    assert fields["rate"].description == "Of all."
    assert (fields["rate"].schema["minimum"], fields["rate"].schema["maximum"]) == (0, 1)
    assert fields["kinds"].schema["examples"] == ["a", "b"]
    assert fields["colors"].schema["values_display"] == {"RED": "RED (r)", "BLUE": "BLUE (b)"}
    assert form_fields(Config(models.M, x=1))["x"].description == "Ex."


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    st.builds(
        dict,
        gap=st.timedeltas(),
        cost=st.decimals(allow_nan=False, allow_infinity=False),
        maybe=st.none() | st.decimals(allow_nan=False, allow_infinity=False),
        colors=st.lists(st.sampled_from(models.Color)),
        kinds=st.lists(st.sampled_from(["a", "b"])).map(tuple),
        rate=st.floats(0, 1),
        at_=st.times(),
        when=st.none() | st.datetimes(),
        names=st.frozensets(st.text("abc[]1,' ")),
    )
)
def test_form_posted_back_unchanged_gives_the_same_config(values):
    config = Config(models.Fields, **values)
    posted = {name: field.default for name, field in form_fields(config).items()}
    changed = apply_overrides(config, posted)
    assert {name: getattr(changed, name) for name in values} == values
