"""Configs as deep, as wide and as much shared as they like: nothing recurses, and time grows with their size."""

import dataclasses
import functools
import json
import subprocess
import sys
from typing import Any, ClassVar

import pytest
from config_targets import Everything, Model, Optimizer, collect, identity
from test_plan_building import REPOSITORY, working_pythons

from nemo_airflow import Config, Partial
from nemo_airflow.config import apply_overrides, build, diff, from_yaml, iter_leaves, map_leaves, to_yaml, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import ConfigError, ParameterTypeError, PlanError
from nemo_airflow.runner import plan as runner

ALLOW = ("config_targets.",)
DEEP = 2_600
"""Above every limit of recursion, of Python and of the readers of JSON and YAML."""
LAST_PART = DEEP // 200 - 1


def chain(length=DEEP, leaf=1):
    config = leaf
    for number in range(length):
        config = Config(Everything, value=config, other=number)
    return config


def wide(length, leaf=1):
    return Config(identity, value=[Config(Everything, value=number, other=[leaf]) for number in range(length)])


def doubled(levels=50):
    """A config of as many objects as levels, with 2 to the power of that many paths to the innermost."""
    config = Config(Model, hidden=1)
    for _ in range(levels):
        config = Config(collect, item=config, tail=config)
    return config


def depth_of(plan):
    deepest, stack = 0, [(plan, 0)]
    while stack:
        value, depth = stack.pop()
        deepest = max(deepest, depth)
        if isinstance(value, (dict, list)):
            stack.extend((item, depth + 1) for item in (value.values() if isinstance(value, dict) else value))
    return deepest


def innermost(value):
    levels = 0
    while not isinstance(value, int):
        value, levels = value.value, levels + 1
    return value, levels


def test_chain_is_validated_written_read_and_built():
    config = chain()
    plan = plans.to_plan(config)
    text = plans.dumps(plan)
    loaded = plans.loads(text)
    assert loaded == plan
    assert depth_of(plan) < 210
    assert plans.digest(loaded) == plans.digest(plan)
    assert innermost(runner.build(loaded, ALLOW)) == (1, DEEP)
    again = plans.from_plan(loaded, ALLOW)
    assert innermost(again) == (1, DEEP)
    assert plans.dumps(plans.to_plan(again)) == text


def test_chain_is_written_as_yaml_and_comes_back():
    config = chain()
    text = to_yaml(config)
    assert len(text) < 100 * DEEP
    assert plans.to_plan(from_yaml(text, ALLOW)) == plans.to_plan(config)


def test_chain_is_flattened_with_short_paths():
    flat = plans.flatten(plans.to_plan(chain()))
    assert len(flat) == 2 * DEEP + 1
    assert max(map(len, flat)) < 2_000
    assert flat["value.value.other"] == str(DEEP - 3)
    assert flat["[part 0]"] == "config_targets:Everything"
    assert flat[f"[part {LAST_PART - 1}].other"] == "199"


def test_chain_is_changed_at_its_top_and_compared():
    config = chain()
    changed = apply_overrides(config, ["value.value.other=-1"])
    assert (changed.value.value.other, config.value.value.other) == (-1, DEEP - 3)
    assert diff(config, changed).to_text() == f"~ value.value.other: {DEEP - 3} -> -1\n1 changed\n"
    inner = diff(config, chain(leaf=2)).changes
    assert [(change.old, change.new) for change in inner] == [("1", "2")]
    assert inner[0].path.startswith(f"[part {LAST_PART - 1}].value.value")
    assert not diff(config, chain())


def test_leaves_of_a_chain_are_visited_and_replaced():
    config = chain()
    assert sum(1 for _ in iter_leaves(config)) == DEEP + 1
    assert innermost(map_leaves(config, lambda path, leaf: -leaf)) == (-1, DEEP)


def test_error_deep_below_has_the_end_of_its_path():
    with pytest.raises(ConfigError) as caught:
        validate(chain(leaf=Config(Optimizer, lr=-1.0)))
    assert str(caught.value).startswith("….value.value")
    assert str(caught.value).endswith(".value: lr must be positive")
    plan = plans.to_plan(chain(leaf=Config(Model, hidden=3)))
    text = plans.dumps(plan).replace('"hidden":3', '"hidden":"x"')
    with pytest.raises(ParameterTypeError, match=rf"^\[part {LAST_PART}\]\.hidden: expected int, got 'x'$"):
        plans.from_plan(plans.loads(text), ALLOW)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: [inner],
        lambda inner: (inner,),
        lambda inner: {"a": inner},
        lambda inner: {1: inner},
        lambda inner: Everything(inner),
        lambda inner: Partial(identity, inner),
    ],
    ids=["list", "tuple", "dict", "pairs", "dataclass", "partial"],
)
def test_every_form_may_nest(wrap):
    value = Config(identity, value=[1])
    for _ in range(1_500):
        value = wrap(value)
    plan = plans.loads(plans.dumps(plans.to_plan([value], check=False)))
    validate([value])
    (built,) = runner.build(plan, ALLOW)
    (again,) = plans.from_plan(plan, ALLOW)
    assert plans.to_plan([again], check=False) == plan
    assert plans.to_plan(from_yaml(to_yaml([value]), ALLOW), check=False) == plans.to_plan([value], check=False)
    for _ in range(1_500):
        built = inside(built)
    assert built == [1]


def inside(value):
    if isinstance(value, functools.partial):
        return value.keywords["value"]
    if isinstance(value, Everything):
        return value.value
    return next(iter(value.values())) if isinstance(value, dict) else value[0]


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
    for _ in range(2_000):
        config = Config(Counted, inner=[config])
    Counted.made = 0
    validate(config)
    assert Counted.made == 2_000


def test_shared_parts_of_a_deep_config_stay_shared():
    shared = [Config(Model, hidden=1)]
    config = shared
    for number in range(1_000):
        config = Config(Everything, value=config, other=shared if number % 100 == 0 else None)
    plan = plans.loads(plans.dumps(plans.to_plan(config)))
    built = runner.build(plan, ALLOW)
    found = set()
    while not isinstance(built, list):
        found |= {id(built.other)} if built.other is not None else set()
        built = built.value
    assert found == {id(built)}
    assert plans.to_plan(plans.from_plan(plan, ALLOW)) == plan


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
def written(make, size):
    config = make(size)
    return config, plans.to_plan(config), to_yaml(config)


WORKS = ["validate", "write", "digest", "load", "decode", "flatten", "build", "leaves", "override"]
WORKS += ["to_yaml", "from_yaml", "diff"]


@pytest.mark.parametrize("make", [chain, wide])
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
def test_steps_grow_with_the_size(work, make):
    small, large = written(make, 600), written(make, 1_800)
    work(*small)  # what is read once for each target
    assert calls_of(work, *large) < 4 * calls_of(work, *small)


DEEP_BUILD = """
import json, sys
from nemo_airflow.runner import plan
built = plan.build(json.load(sys.stdin), ["types."])
levels = 0
while not isinstance(built, int):
    built, levels = built.value, levels + 1
assert "fiddle" not in sys.modules and "nemo_airflow.config" not in sys.modules
print(levels)
"""


@pytest.mark.parametrize("python", working_pythons())
def test_deep_plan_is_built_by_every_python_at_hand(python):
    plan = json.loads(plans.dumps(plans.to_plan(chain())).replace("config_targets:Everything", "types:SimpleNamespace"))
    command = [python, "-I", "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{DEEP_BUILD}"]
    done = subprocess.run(command, input=json.dumps(plan), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{DEEP}\n", "")


@pytest.mark.parametrize(
    ("root", "parts", "says"),
    [
        ({"_part_": 0}, [], "_part_ 0 refers to a missing part: this plan has 0"),
        ({"_part_": "0"}, [1], "_part_ '0' refers to a missing part"),
        ({"_part_": True}, [1, 2], "_part_ True refers to a missing part"),
        ({"_part_": -1}, [1], "_part_ -1 refers to a missing part"),
        ([{"_part_": 0}, {"_part_": 0}], [1], "1: part 0 is used twice"),
        ({"_part_": 0}, [[{"_part_": 0}]], "[part 0].0: part 0 is used twice"),
        (1, [2], "part 0 is never used"),
        (1, [{"_part_": 0}], "part 0 is never used"),
        (1, {"0": 1}, "parts is not a list"),
        ({"_part_": 0}, [{"_x_": 1}], "[part 0]: '_x_': not a form of node that a plan has"),
        ({"_part_": 0, "a": 1}, [1], "'_part_': not a form of node that a plan has"),
    ],
)
def test_parts_that_make_no_plan_are_refused(root, parts, says):
    with pytest.raises(PlanError) as caught:
        plans.loads(json.dumps({"version": 1, "root": root, "parts": parts}))
    assert str(caught.value).startswith(says)


def test_what_fiddle_cannot_build_for_its_depth_is_said():
    with pytest.raises(
        ConfigError, match=r"^the config is nested 1001 levels deep, too deep for Fiddle to build here; a job can"
    ):
        build(chain(1_000))
    with pytest.raises(RecursionError):
        build(Config(endless, 1))


def endless(number):
    return endless(number + 1)


def test_value_of_two_to_the_fifty_items_is_refused_with_a_short_message():
    value = [1]
    for _ in range(50):
        value = [value, value]
    with pytest.raises(ParameterTypeError, match=r"hidden: expected int, got \[\[\[") as caught:
        Config(Model, hidden=value)
    assert len(str(caught.value)) < 200
    assert runner.build(plans.loads(plans.dumps(plans.to_plan(Config(identity, value=value)))), ALLOW)[0][0] is not None
