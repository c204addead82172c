"""An override means the same here, on Fiddle's configs, and in the job, which has nothing but the standard library."""

import copy
import dataclasses
import datetime
import decimal
import typing

import corpus
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_airflow import Config, Partial, Recipe
from nemo_airflow.config import apply_overrides, build, from_yaml, to_yaml
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import ConfigError, OverrideError, ParameterTypeError
from nemo_airflow.language import configs
from nemo_airflow.language.plan.build import Builder
from nemo_airflow.language.recipes import foreign, resolve, tree
from nemo_airflow.language.recipes.changes import apply

ALLOW = ["corpus."]


def here(target, arguments, override):
    return apply_overrides(Config(target, **arguments), [override], allow=ALLOW, origin="the job")


def in_the_job(target, arguments, override):
    return apply(configs.Config(target, **arguments), override, ALLOW)


def shown(value):
    """Returns a value with the types of all that is in it; of a config the kind, target and arguments."""
    if hasattr(value, "__arguments__"):
        arguments = {key: shown(argument) for key, argument in value.__arguments__.items()}
        kind = "Partial" if type(value).__name__ == "Partial" else "Config"
        return f"{kind}({value.__fn_or_cls__.__qualname__}, {dict(sorted(arguments.items()))})"
    if isinstance(value, dict):
        return f"{type(value).__name__}({[(shown(key), shown(item)) for key, item in value.items()]})"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({[shown(item) for item in value]})"
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({sorted(map(shown, value))})"
    return f"{type(value).__name__} {value!r}"


def outcome(apply_it, name, override, present=False):
    arguments = {"x": copy.deepcopy(corpus.PRESENT[name])} if present else {}
    try:
        return shown(apply_it(corpus.TARGETS[name], arguments, override))
    except ConfigError as error:
        return f"{type(error).__name__}: {error}"


def check(name, overrides, present=False):
    found = {}
    for override in overrides:
        left, right = (outcome(side, name, override, present) for side in (here, in_the_job))
        if left != right:
            found[override] = f"here {left}\n  in the job {right}"
    assert not found, "\n".join(f"{name}, {override}: {what}" for override, what in found.items())


@pytest.mark.parametrize("name", corpus.ANNOTATIONS)
def test_a_value_is_read_alike(name):
    check(name, [f"x={text}" for text in corpus.TEXTS])


@pytest.mark.parametrize("name", corpus.PRESENT)
def test_a_change_is_made_alike(name):
    check(name, corpus.CHANGES, present=True)


def config_classes(base):
    class First(base):
        VERSION: typing.ClassVar[int] = 1
        kind: str = "a"
        lr: float = 0.1
        sizes: list[int] = dataclasses.field(default_factory=lambda: [1])

    class Second(First):
        n: int

    return First, Second


HERE, IN_THE_JOB = (config_classes(base) for base in (Config, configs.Config))


def both(do_here, do_in_the_job):
    """Returns what both sides answer: a value or an error."""
    found = []
    for do in (do_here, do_in_the_job):
        try:
            found.append(repr(do()))
        except (ConfigError, TypeError) as error:
            found.append(str(error))
    assert found[0] == found[1]
    return found[0]


def test_a_config_class_has_the_fields_of_its_bases_and_no_others():
    sides = (HERE[1], IN_THE_JOB[1])
    made = [kind(n=3, lr=0.5) for kind in sides]
    assert all((one.kind, one.lr, one.n, one.VERSION) == ("a", 0.5, 3, 1) for one in made)
    assert both(lambda: build(made[0]), lambda: tree.build(made[1])) == "Record(kind='a', lr=0.5, sizes=[1], n=3)"
    for change, answer in {
        "lr=2": "Second(lr=2.0, n=3)",
        "kind=b": "Second(kind='b', lr=0.5, n=3)",
        "n=x": "n: expected int, got 'x'",
    }.items():
        assert answer == both(
            lambda: apply_overrides(made[0], [change], allow=ALLOW),  # noqa: B023 - called at once
            lambda: apply(copy.deepcopy(made[1]), change, ALLOW),  # noqa: B023
        )
    wrong = f"{HERE[1].__qualname__} has no parameter 'lrr'; did you mean 'lr'? valid: kind, lr, sizes, n"
    assert both(lambda: HERE[1](lrr=3), lambda: IN_THE_JOB[1](lrr=3)) == wrong
    assert both(lambda: setattr(made[0], "lrr", 3), lambda: setattr(made[1], "lrr", 3)) == wrong


@pytest.mark.parametrize("call", ["Second(n=2)", "Second(n=a)", "Second(m=2)", "Second(3)", "First(sizes=[3])"])
def test_a_config_class_in_an_override_makes_its_config(call, monkeypatch):
    def apply_with(classes, side):
        for kind in classes:
            monkeypatch.setattr(corpus, kind.__name__, kind, raising=False)
            monkeypatch.setattr(kind, "__module__", "corpus")
        found = side(corpus.hand_on, {}, f"x=corpus:{call}")
        return found.x

    found = both(lambda: apply_with(HERE, here), lambda: apply_with(IN_THE_JOB, in_the_job))
    assert found.startswith(call.partition("(")[0]) == (call in ("Second(n=2)", "First(sizes=[3])"))


def holders(config):
    net = config(corpus.Optim)
    kept = corpus.Holder([1])
    return config(corpus.hand_on, x=[corpus.Holder([corpus.Holder({"a": net})]), corpus.Holder(net), kept])


def test_configs_in_dataclass_instances_are_built_once_each():
    sides = [build(holders(Config)), tree.build(foreign.own(holders(configs.Config)))]
    plan = plans.to_plan(holders(Config))
    sides.append(Builder(ALLOW).build(plan))
    for x, _, _ in sides:
        assert isinstance(x[1].held, corpus.Optim)
        assert x[0].held[0].held["a"] is x[1].held
    assert [x[2].made for x, _, _ in sides] == [1, 1, 2]  # made anew where a plan has carried it


@pytest.mark.parametrize("change", ["_={_: 1, __: 2}", "__=3", "x={_target_x: 1}", "x={_wrong_: 1}"])
def test_only_keys_of_plans_are_reserved(change):
    found = both(lambda: here(corpus.hand_on, {}, change), lambda: in_the_job(corpus.hand_on, {}, change))
    assert found.startswith("Config(") == ("_wrong_" not in change)
    if "_wrong_" not in change:
        config = here(corpus.hand_on, {}, change)
        assert Builder(ALLOW).build(plans.to_plan(config)) == build(config)
        assert from_yaml(to_yaml(config), allow=ALLOW) == config


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"b": [1, {"c": None}]}, "t": "true", "": "x: y", "n": "3"},
        {1: "a", "1": "b", None: 2, 1.5: (1, {2})},
        {"_target_": "corpus.Optim", "lr": "3", "betas": [1, 2]},
        {"below": [{"_target_": "corpus:Optim", "_args_": [2.0]}]},
        {"_target_": "corpus:Optim", "_partial_": True, "lr": 2.0},
        [{"_path_": "/x"}, {"_timedelta_": 3.5}, {"_tuple_": [1]}, {"_ref_": "corpus.hand_on"}],
        (b"x", decimal.Decimal("1.10"), datetime.timedelta(days=1), float("inf"), corpus.Optim),
        {"config": Config(corpus.Optim, lr=2.0), "instance": corpus.Optim(name="sgd"), "point": corpus.Point(1)},
        Partial(corpus.Optim, name="sgd"),
    ],
)
def test_a_value_below_a_recipe_is_the_one_that_it_is_in_a_config(value):
    found = build(apply_overrides(Config(corpus.hand_on), {"x": value}, allow=ALLOW))
    changed = apply_overrides(Recipe("corpus:make_config"), {"x": value}, allow=ALLOW)
    resolved = resolve.build_here("corpus:make_config", (), {}, changed.__recipe_overrides__)
    assert show_partials(resolved) == show_partials(found)


def show_partials(value):
    return shown(value[0]() if callable(value[0]) else value)


def test_a_recipe_is_no_value_below_another_one():
    with pytest.raises(OverrideError, match=r"^x: a recipe cannot be a value below another one: name a factory$"):
        apply_overrides(Recipe("corpus:make_config"), {"x": Recipe("corpus:make_config")}, allow=ALLOW)


PIECES = [
    "x", "y", "=", "+=", "-=", "|=", "~=", "~", ".", "[", "]", "(", ")", "{", "}", ",", ":", "'", "\"", " ",
    "\\", "@", "0", "1", "-1", "2.5", "1e3", "true", "null", "a", "b.c", "RED", "Optim", "lr", "_target_",
    "{{ a }}", "é",
]  # fmt: skip


@given(
    st.sampled_from(sorted(corpus.PRESENT)), st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.booleans()
)
@settings(max_examples=300, deadline=None)
def test_any_text_means_the_same(name, text, sets):
    if "{{" not in text:  # a template, which a job has not
        check(name, [f"x={text}" if sets else text], present=True)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [(name, text, value) for name, cases in corpus.READ.items() for text, value in cases.items()],
)
def test_a_text_is_read_as_its_place_wants_it(name, text, value):
    found = here(corpus.TARGETS[name], {}, f"x={text}").x
    assert shown(found) == shown(value)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in corpus.REFUSED.items() for text in texts])
def test_a_text_that_does_not_fit_is_refused(name, text):
    with pytest.raises(ParameterTypeError, match=r"^x(\.\w+)*: expected"):
        here(corpus.TARGETS[name], {}, f"x={text}")
