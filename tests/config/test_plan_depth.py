"""Configs of 200 levels and no more, wide and much shared ones: time grows with their size."""

import dataclasses
import functools
import itertools
import json
import subprocess
import sys
import traceback
from typing import Any, ClassVar

import pytest
from config_targets import Everything, Model, Optimizer, collect, identity
from test_plan_building import REPOSITORY, working_pythons

from nemo_airflow import Config, Partial
from nemo_airflow.config import (
    apply_overrides,
    build,
    compose,
    diff,
    from_yaml,
    history,
    iter_leaves,
    map_leaves,
    plan_from_yaml,
    to_mermaid,
    to_python,
    to_tree,
    to_yaml,
    validate,
)
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import ParameterTypeError, PlanError
from nemo_airflow.runner import plan as runner
from nemo_airflow.runner.masking import map_texts
from nemo_airflow.runner.stream_writer import encode
from nemo_airflow.stream import StreamReader

ALLOW = ("config_targets.",)
MOST = 200
FRAMES = 150
"""As many as a worker of Airflow has on its stack when it runs a task."""


def nested(wrap, levels=MOST):
    """Returns 1 wrapped so many times, in a list that has each wrapping once more, so that all are shared."""
    value, wrapped = 1, []
    for _ in range(levels - 1):
        value = wrap(value)
        wrapped.append(value)
    return [value, *reversed(wrapped)]


def wide(length, leaf=1):
    return Config(identity, value=[Config(Everything, value=number, other=[leaf]) for number in range(length)])


def doubled(levels=50):
    """A config of as many objects as levels, with 2 to the power of that many paths to the innermost."""
    config = Config(Model, hidden=1)
    for _ in range(levels):
        config = Config(collect, item=config, tail=config)
    return config


FORMS = {
    "config": lambda inner: Config(Everything, value=inner),
    "partial": lambda inner: Partial(identity, value=inner),
    "args": lambda inner: Config(collect, inner, 1),
    "instance": lambda inner: Everything(inner),
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "dict": lambda inner: {"a": inner},
    "pairs": lambda inner: {1: inner},
}

STEPS = {
    "validate": validate,
    "write": lambda value: plans.to_plan(value, check=False),
    "load": lambda value: plans.loads(plans.dumps(plans.to_plan(value, check=False))),
    "decode": lambda value: plans.from_plan(plans.dumps(plans.to_plan(value, check=False)), ALLOW),
    "build": lambda value: runner.build(plans.to_plan(value, check=False), ALLOW),
    "build here": build,
    "flatten": lambda value: plans.flatten(plans.to_plan(value, check=False)),
    "leaves": lambda value: list(iter_leaves(value)),
    "map": lambda value: map_leaves(value, lambda path, leaf: 2 if leaf == 1 else leaf),
    "override": lambda value: apply_overrides(value, {"0": value[0]}),
    "merge": lambda value: compose(Config(identity, value=1), Config(identity, value=value[0]), check=False),
    "yaml": lambda value: from_yaml(to_yaml(value), ALLOW),
    "python": to_python,
    "picture": lambda value: to_tree(value) + to_mermaid(value),
    "history": history,
    "diff": lambda value: diff(value, [1]),
}


def deep_in_a_stack(work):
    """Works on a stack as deep as a worker's; the tests' own frames, more in a process of xdist, count."""
    return go_deeper(work, FRAMES - sum(1 for _ in traceback.walk_stack(None)))


def go_deeper(work, frames):
    return work() if frames <= 0 else go_deeper(work, frames - 1)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_may_nest_to_the_limit_in_a_deep_stack(form):
    value = nested(FORMS[form])
    for step, work in STEPS.items():
        try:
            deep_in_a_stack(lambda work=work: work(value))
        except RecursionError:
            pytest.fail(f"{step} recurses too much")
    text = plans.dumps(plans.to_plan(value, check=False))
    assert plans.dumps(plans.to_plan(plans.from_plan(text, ALLOW), check=False)) == text
    assert plans.to_plan(from_yaml(to_yaml(value), ALLOW), check=False) == plans.to_plan(value, check=False)


REMEDY = "make what is deeper in a function, and configure that function"
TOO_DEEP = rf"^[^\n]{{1,200}}: nested deeper than 200 levels: {REMEDY}$"


@pytest.mark.parametrize("form", FORMS)
def test_one_level_more_is_refused_with_both_ends_of_the_path(form):
    value = nested(FORMS[form], MOST + 1)
    for step in ("validate", "write", "build here", "leaves", "map", "override", "yaml", "python", "picture"):
        with pytest.raises(PlanError, match=TOO_DEEP) as caught:
            STEPS[step](value)
        assert caught.value.path.startswith("0.")


def test_the_deepest_plan_comes_back_on_the_stream():
    plan = plans.to_plan(nested(FORMS["pairs"]), check=False)
    (record,) = deep_in_a_stack(lambda: StreamReader().feed(encode("config", 0.0, {"plan": plan})))
    assert record.data["plan"] == plan
    assert deep_in_a_stack(lambda: map_texts(plan, str.upper, keys=False)) == plan


@pytest.mark.parametrize("levels", [MOST + 1, 100_000])
def test_texts_that_nest_deeper_are_refused(levels):
    for text in ("[" * levels + "1" + "]" * levels, '{"a":' * levels + "1" + "}" * levels):
        with pytest.raises(PlanError, match=f"nested deeper than 200 levels: {REMEDY}$"):
            plans.loads(f'{{"version":1,"root":{text}}}')
        with pytest.raises(PlanError, match=f"nested deeper than 200 levels: {REMEDY}$"):
            plan_from_yaml(text)


def test_sharing_that_nests_deeper_is_refused():
    links = [[] for _ in range(300)]
    for link, inner in itertools.pairwise(links):
        link.append(inner)
    for value in (links, links[::-1]):
        for work in (validate, STEPS["write"], STEPS["yaml"], STEPS["history"]):
            with pytest.raises(PlanError, match="nested deeper than 200 levels"):
                work(value)
    written = [{"_id_": str(i), "_value_": [{"_same_": str(i + 1)}]} for i in range(300)]
    for root in ([*written, {"_id_": "300", "_value_": []}], [{"_id_": "300", "_value_": []}, *written[::-1]]):
        for work in (lambda plan: plans.loads(plans.dumps(plan)), runner.build):
            with pytest.raises(PlanError, match="nested deeper than 200 levels"):
                work({"version": 1, "root": root})


def test_a_plan_of_several_parts_is_refused():
    plan = {"version": 1, "root": [{"_part_": 0}], "parts": [[1]]}
    for work in (plans.flatten, runner.build, lambda plan: plans.loads(json.dumps(plan))):
        with pytest.raises(
            PlanError, match="one with parts, of a config deeper than 200 levels, is no longer read: make"
        ):
            work(plan)


def recipe(name, levels):
    node = {"_target_": f"config_targets:{name}", "levels": levels, "_recipe_": {"overrides": []}}
    return {"version": 1, "root": node}


@pytest.mark.parametrize("factory", ["nested_for_a_job", "nested_in_fiddle"])
def test_a_recipe_may_make_as_many_levels_in_a_job(factory):
    built, plan, as_text = deep_in_a_stack(lambda: runner.build_resolved(recipe(factory, MOST), ALLOW))
    assert as_text == []
    for _ in range(MOST):
        built = built.value
    assert built == 1
    assert plans.loads(plans.dumps(plan)) == plan
    for levels in (MOST + 1, 20_000):
        with pytest.raises(PlanError, match=TOO_DEEP):
            runner.build(recipe(factory, levels), ALLOW)


@dataclasses.dataclass
class Counted:
    inner: Any
    made: ClassVar[int] = 0

    def __post_init__(self) -> None:
        Counted.made += 1

    def validate(self) -> None:
        assert self.inner is not None


def test_instances_for_validate_are_made_once_a_level():
    config = Config(Optimizer, lr=1.0)
    for _ in range(99):
        config = Config(Counted, inner=[config])
    Counted.made = 0
    validate(config)
    assert Counted.made == 99


def test_config_of_two_to_the_fifty_paths():
    config = doubled()
    validate(config)
    plan = plans.loads(plans.dumps(plans.to_plan(config)))
    assert len(plans.dumps(plan)) < 10_000
    assert plans.flatten(plan)["tail"] == "same as item"
    assert len(list(iter_leaves(config))) == 1
    assert not diff(config, doubled())
    assert to_yaml(apply_overrides(config, ["item.item.item.item.item=1"])).count("*") >= 40
    for built in (runner.build(plan, ALLOW), plans.from_plan(plan, ALLOW)):
        while not isinstance(built, Model) and getattr(built, "__fn_or_cls__", None) is not Model:
            first, second = built if isinstance(built, tuple) else (built.item, built.tail)
            assert first is second
            built = first


def test_tuples_of_two_to_the_fifty_paths_are_refused_in_time():
    value = ([1],)
    for _ in range(50):
        value = (value, value)
    validate(Config(identity, value=value))
    assert len(list(iter_leaves(value))) == 1
    with pytest.raises(PlanError, match="too many shared tuples"):
        plans.to_plan(Config(identity, value=value))


def calls_of(work, *args):
    """Returns how many calls of Python and C functions some work takes."""
    count = 0

    def tick(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(tick)
    try:
        work(*args)
    finally:
        sys.setprofile(None)
    return count


@functools.cache
def written(size):
    config = wide(size)
    return config, plans.to_plan(config), to_yaml(config)


WORKS = ["validate", "write", "digest", "load", "decode", "flatten", "build", "leaves", "override"]
WORKS += ["to_yaml", "from_yaml", "diff"]


@pytest.mark.parametrize(
    "work",
    [
        lambda config, plan, text: validate(config),
        lambda config, plan, text: plans.to_plan(config),
        lambda config, plan, text: plans.digest(plan),
        lambda config, plan, text: plans.loads(plans.dumps(plan)),
        lambda config, plan, text: plans.from_plan(plan, ALLOW),
        lambda config, plan, text: plans.flatten(plan),
        lambda config, plan, text: runner.build(plan, ALLOW),
        lambda config, plan, text: list(iter_leaves(config)),
        lambda config, plan, text: apply_overrides(config, ["value=3"]),
        lambda config, plan, text: to_yaml(config),
        lambda config, plan, text: from_yaml(text, ALLOW),
        lambda config, plan, text: diff(plan, plans.to_plan(Config(identity, value=config))),
    ],
    ids=WORKS,
)  # fmt: skip
def test_steps_grow_with_the_size(work):
    small, large = written(600), written(1_800)
    work(*small)  # what is read once for each target
    assert calls_of(work, *large) < 4 * calls_of(work, *small)


JOB = """
import json, sys
from nemo_airflow.language import configs
from nemo_airflow.language.errors import PlanError
from nemo_airflow.language.recipes import tree
from nemo_airflow.runner import plan

def deep(work, frames):
    return work() if not frames else deep(work, frames - 1)

text = sys.stdin.read()
built = deep(lambda: plan.build(json.loads(text), ["types."]), FRAMES)[0]
levels = 0
while not isinstance(built, int):
    built, levels = built[1].value, levels + 2
config = 1
for number in range(200):
    config = configs.Config(dict, value=config)
recorded, as_text = deep(lambda: tree.record(config), FRAMES)
deep(lambda: tree.build(config), FRAMES)
try:
    tree.build([config])
except PlanError as error:
    print(levels, str(error).partition(": ")[2])
assert "fiddle" not in sys.modules and "nemo_airflow.config" not in sys.modules
""".replace("FRAMES", str(FRAMES))


@pytest.mark.parametrize("python", working_pythons())
def test_job_of_every_python_at_hand_builds_the_deepest_plan(python):
    node, number = 1, 0
    for number in range(99):
        node = {"_id_": f"a{number}", "_target_": "types:SimpleNamespace", "value": node}
        node = {"_id_": f"b{number}", "_value_": {"_dict_": [[1, node]]}}
    plan = {"version": 1, "root": [node]}
    command = [python, "-I", "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{JOB}"]
    done = subprocess.run(command, input=json.dumps(plan), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"198 nested deeper than 200 levels: {REMEDY}\n", "")


def test_value_of_two_to_the_fifty_items_is_refused_with_a_short_message():
    value = [1]
    for _ in range(50):
        value = [value, value]
    with pytest.raises(ParameterTypeError, match=r"hidden: expected int, got \[\[\[") as caught:
        Config(Model, hidden=value)
    assert len(str(caught.value)) < 200
    assert runner.build(plans.loads(plans.dumps(plans.to_plan(Config(identity, value=value)))), ALLOW)[0][0] is not None
