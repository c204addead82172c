"""Visiting and replacing the leaves of configs."""

import collections
import dataclasses
import datetime
import re
import typing
from pathlib import Path

import pytest
from config_targets import Color, Data, Model, Optimizer, Point, collect, constrained, identity, train
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_airflow import Config
from nemo_airflow.config import apply_overrides, iter_leaves, map_leaves
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import ConfigError, ParameterTypeError, PlanError


def rendered(**texts):
    """Returns what stands for rendering: each named template is replaced by its text."""
    return lambda _, leaf: (
        texts.get(leaf[2:-2].strip(), leaf) if isinstance(leaf, str) and leaf.startswith("{{") else leaf
    )


def test_leaves_are_found_at_any_depth_with_their_paths():
    config = Config(train, model=Config(Model, hidden=1), names={"a": [1], "b.c": [2]}, data=Data(seed=4))
    assert dict(iter_leaves(config)) == {
        "model.hidden": 1,
        "names.a.0": 1,
        "names['b.c'].0": 2,
        "data.path": Path("/data"),
        "data.optimizer.lr": 1e-3,
        "data.optimizer.color": Color.RED,
        "data.optimizer.betas.0": 0.9,
        "data.optimizer.betas.1": 0.99,
        "data.seed": 4,
    }
    assert list(iter_leaves("x")) == [("", "x")]
    assert dict(iter_leaves([{"a": (1, {2})}])) == {"0.a.0": 1, "0.a.1.0": 2}


def test_what_is_shared_is_visited_once():
    model = Config(Model, hidden=1)
    assert [path for path, _ in iter_leaves(Config(collect, [model], [model]))] == ["item.0.hidden"]


def test_changed_texts_are_typed_by_the_annotation():
    config = Config(
        train,
        model=Config(Model, hidden="{{ n }}", dropout="{{ rate }}"),
        optimizer=Config(Optimizer, layers=[1, "{{ n }}"], color="{{ color }}", betas=("{{ rate }}", 1.0)),
        names={"a": ["{{ n }}"]},
        start="{{ day }}",
        data=Config(Data, path="{{ path }}", seed="{{ none }}"),
    )
    texts = {"n": "3", "rate": "0.5", "color": "BLUE", "day": "2026-01-02", "path": "/x", "none": "None"}
    done = map_leaves(config, rendered(**texts))
    assert done.model == Config(Model, hidden=3, dropout=0.5)
    assert done.optimizer == Config(Optimizer, layers=[1, 3], color=Color.BLUE, betas=(0.5, 1.0))
    assert done.names == {"a": [3]}
    assert done.start == datetime.date(2026, 1, 2)
    assert (done.data.path, done.data.seed) == (Path("/x"), None)
    assert config.model.hidden == "{{ n }}"


def test_results_of_other_kinds_are_converted_where_needed():
    config = Config(train, names="{{ a }}", optimizer=Config(Optimizer, betas="{{ b }}", lr="{{ c }}"))
    done = map_leaves(config, rendered(a={"x": [1]}, b=[1, 2], c="1e-3"))
    assert done.names == {"x": [1]}
    assert done.optimizer.betas == (1.0, 2.0)
    assert done.optimizer.lr == 1e-3


def test_text_stays_a_text_where_one_fits():
    done = map_leaves(Config(constrained, rate=1.0, size="{{ n }}"), rendered(n="3"))
    assert done.size == "3"
    assert map_leaves(Config(identity, "{{ n }}"), rendered(n="3")).value == "3"
    assert map_leaves({"a": "{{ n }}"}, rendered(n="3")) == {"a": "3"}
    assert map_leaves("{{ n }}", rendered(n="3")) == "3"


def test_result_that_does_not_fit_is_refused_with_its_path():
    config = [Config(train, model=Config(Model, hidden="{{ n }}"))]
    with pytest.raises(ParameterTypeError) as caught:
        map_leaves(config, rendered(n="three"))
    assert str(caught.value) == "0.model.hidden: expected int, got 'three'"


def test_unchanged_values_are_left_alone():
    config = Config(train, names={"a": [1]})
    config.names["a"].append("not an int")
    assert map_leaves(config, lambda _, leaf: leaf) == config


def test_sharing_and_kinds_are_kept():
    model, optimizer = Config(Model, hidden=1), Optimizer()
    value = {"a": [model, optimizer, Point(1, 2), {3}, frozenset({4})], "b": (model, optimizer)}
    done = map_leaves(value, lambda _, leaf: leaf + 1 if isinstance(leaf, int) else leaf)
    assert done["a"][0] is done["b"][0]
    assert done["a"][0] is not model
    assert done["a"][1] is done["b"][1]
    assert done["a"][2:] == [Point(2, 3), {4}, frozenset({5})]
    assert type(done["a"][2]) is Point


@dataclasses.dataclass(frozen=True)
class Frozen:
    size: int
    double: int = dataclasses.field(init=False, default=0)

    def __post_init__(self):
        object.__setattr__(self, "double", 2 * int(self.size) if self.size != "{{ n }}" else 0)


def test_frozen_dataclasses_are_made_anew():
    assert map_leaves([Frozen("{{ n }}")], rendered(n="4"))[0].double == 8


def test_value_that_holds_itself_is_refused():
    loop = []
    loop.append(loop)
    for visit in (lambda: list(iter_leaves(loop)), lambda: map_leaves(loop, lambda _, leaf: leaf)):
        with pytest.raises(ConfigError, match="0: the value contains itself"):
            visit()


@dataclasses.dataclass
class Doubling:
    lr: float
    layers: list[int] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.lr *= 2


@dataclasses.dataclass(frozen=True, slots=True)
class Seeded:
    layers: list[int]
    seed: dataclasses.InitVar[int]
    start: int = dataclasses.field(init=False, default=0)

    def __post_init__(self, seed):
        object.__setattr__(self, "start", seed)


COPIES = {
    "map_leaves": lambda config: map_leaves(config, lambda _, leaf: leaf),
    "apply_overrides": lambda config: apply_overrides(config, ["tail=1"]),
    "apply_no_overrides": lambda config: apply_overrides(config, []),
}


@pytest.mark.parametrize("copy_of", COPIES.values(), ids=COPIES)
def test_a_copy_calls_no_post_init_of_a_dataclass_again(copy_of):
    config = Config(collect, item=[Doubling(0.1, [1]), Seeded([2], seed=7)])
    for _ in range(3):
        config = copy_of(config)
    doubling, seeded = config.item
    assert (doubling.lr, doubling.layers) == (0.2, [1])
    assert (seeded.layers, seeded.start) == ([2], 7)
    other = copy_of(config)
    assert other.item[0].layers is not doubling.layers


class Named(list):
    def __init__(self, name, *items):
        super().__init__(items)
        self.name = name


class Upper(dict):
    def __init__(self, name):
        super().__init__()
        self.name = name


def upper():
    made = Upper("n")
    made["a"] = 1
    return made


SUBCLASSES = {
    "counter": collections.Counter("aab"),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "ordered": collections.OrderedDict(b=1, a=2),
    "list": Named("n", 1, 2),
    "dict": upper(),
}


@pytest.mark.parametrize("copy_of", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("value", SUBCLASSES.values(), ids=SUBCLASSES)
def test_a_copy_has_containers_of_any_kind_as_they_were(value, copy_of):
    done = copy_of(Config(collect, item=value)).item
    assert (type(done), done, vars(done) if hasattr(done, "__dict__") else None) == (
        type(value),
        value,
        vars(value) if hasattr(value, "__dict__") else None,
    )
    assert getattr(done, "default_factory", None) is getattr(value, "default_factory", None)
    assert list(done) == list(value)
    assert done is not value


@pytest.mark.parametrize(("value", "plain"), [(each, type(each).__mro__[1].__name__) for each in SUBCLASSES.values()])
def test_a_plan_refuses_a_container_that_the_job_would_get_as_another(value, plain):
    message = f"item.0: a plan holds no {type(value).__name__}, and the job would get a {plain}: write {plain}(...)"
    with pytest.raises(PlanError, match=f"^{re.escape(message)}"):
        plans.to_plan(Config(collect, item=[value]))


def test_a_plan_refuses_an_instance_that_does_not_keep_what_its_constructor_takes():
    with pytest.raises(PlanError, match=r"^item: an instance of Seeded does not keep 'seed', .*: write Config\(Seeded"):
        plans.to_plan(Config(collect, item=Seeded([2], seed=7)))
    assert plans.to_plan(Config(collect, item=Config(Seeded, [2], seed=7)))["root"]["item"]["seed"] == 7


def test_a_counter_whose_leaves_are_replaced_has_the_new_counts():
    counts = collections.Counter("aab")
    assert map_leaves(counts, lambda _, count: count + 1) == collections.Counter(a=3, b=2)
    assert counts == collections.Counter("aab")


def of_values(
    extra: dict[str, typing.Any] | None = None,
    options: list[int | None] | None = None,
    pairs: list[tuple[int, int]] | None = None,
    pair: tuple[int, int] | None = None,
    seeds: set[int] | None = None,
) -> None:
    return None


RESULT = {"lr": 0.1, "name": None, "layers": (1, 2), "text": "a\nb", "inf": float("-inf"), "set": {1}, "raw": b"\0"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("extra", RESULT),
        ("extra", {"a": {"b": ["it's", 'say "x"', "\\", "é\u2028", ""]}}),
        ("options", [1, None]),
        ("pairs", [(1, 2)]),
        ("pair", (1, 2)),
        ("seeds", {3}),
    ],
)
def test_a_rendered_text_of_a_value_is_that_value(name, value):
    done = map_leaves(Config(of_values, **{name: "{{ up }}"}), rendered(up=str(value)))
    assert repr(getattr(done, name)) == repr(value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_a_text_of_any_plain_value_is_that_value_or_refused(value):
    config = Config(of_values, extra="{{ up }}")
    done = map_leaves(config, rendered(up=str({"value": value}))).extra
    assert repr(done) == repr({"value": value})


@pytest.mark.parametrize(
    "value",
    [
        {"day": datetime.date(2026, 1, 2)},
        {"path": Path("/x")},
        {"object": object()},
        {"color": Color.RED},
        {"counts": collections.Counter("a")},
        {"nested": [{"object": object()}]},
    ],
)
def test_a_rendered_text_that_no_value_can_be_read_from_is_refused(value):
    with pytest.raises(ParameterTypeError, match=r"extra: expected .*, which was rendered as unreadable text: pass"):
        map_leaves(Config(of_values, extra="{{ up }}"), rendered(up=str(value)))


def test_a_rendered_text_written_by_hand_is_read_as_an_override_is():
    texts = {
        "{a: b, c: [x, 1, null]}": {"a": "b", "c": ["x", 1, None]},
        '{"a": true}': {"a": True},
        "{a: (1,)}": {"a": (1,)},
    }
    for text, value in texts.items():
        assert map_leaves(Config(of_values, extra="{{ up }}"), rendered(up=text)).extra == value
        assert apply_overrides(Config(of_values), [f"extra={text}"]).extra == value
