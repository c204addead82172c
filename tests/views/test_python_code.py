"""Generated code makes the same config again."""

import ast
import datetime
import decimal
import subprocess
import sys
from pathlib import Path

import fiddle as fdl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_airflow import Config, Partial, Recipe
from nemo_airflow.cli import main
from nemo_airflow.config import plan as plans
from nemo_airflow.config import to_python
from nemo_airflow.exceptions import ConfigError

OWN = """
import enum
from nemo_airflow import Config

class Config2: ...

class Color(enum.Enum):
    RED = 1

class Outer:
    class Inner:
        def __init__(self, x: object = None): ...

class Settings(Config):
    rate: float = 0.1

def Partial(x: object = None, **more: object): ...

def call(a: object = None, /, b: object = None, **more: object): ...

def star(a: object = 0, *rest: object, k: object = 1, **more: object): ...

def recipe(x: int = 1, overrides: str = ""):
    return Config(call, x)
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "generated_targets.py").write_text(OWN)
    sys.path.insert(0, str(folder))
    import generated_targets

    yield generated_targets
    sys.path.remove(str(folder))
    del sys.modules["generated_targets"]


def again(source, name="config"):
    made = {}
    exec(compile(source, "made", "exec"), made)
    return made[name]


def assert_comes_back(config):
    plan = plans.to_plan(config)
    for source in (to_python(config), to_python(plan), to_python(config, by_name=True)):
        assert plans.digest(plans.to_plan(again(source))) == plans.digest(plan), source


def test_every_kind_of_value_comes_back(code):
    zone = datetime.timezone(datetime.timedelta(hours=2))
    times = [datetime.datetime(2026, 1, 2, 3, tzinfo=zone), datetime.date(2026, 1, 2), datetime.time(1, 2)]
    numbers = [
        None,
        True,
        1,
        1.5,
        float("nan"),
        float("-inf"),
        decimal.Decimal("1.10"),
        datetime.timedelta(microseconds=-1),
    ]
    texts = ["a'\"\n\u2028é", b"\x00x", Path("/a b")]
    names = [code.Color.RED, code.call, code.Outer.Inner, int, len]
    containers = [(), (1,), set(), {1, 2}, frozenset({3}), [], {}, {"a b": 1, 2: (3,), (1, "x"): [4]}]
    values = [*times, *numbers, *texts, *names, *containers]
    assert_comes_back(Config(code.call, values))


def test_every_kind_of_config_comes_back(code):
    shared = Config(code.Outer.Inner, [1])
    config = Config(
        code.call,
        Partial(code.call, shared, b=shared),
        b=[code.Settings(rate=0.2), fdl.ArgFactory(code.Outer.Inner, x=3), Config(code.Partial)],
        **{"class": Config(code.Config2), "word": 1},
    )
    assert_comes_back(config)
    made = again(to_python(config))
    assert made.__arguments__[0].__arguments__[0] is made.__arguments__[0].b


def test_arguments_by_position_and_by_name_come_back(code):
    for config in (
        Config(code.star, 1, 2, 3, k=5),
        Config(code.star, 1, k=5),
        Config(code.star, 1, 2, 3, **{"k": 5, "class": 6, "b": 7}),
        Partial(code.star, [1], Config(code.star, 2, 3)),
    ):
        assert_comes_back(config)
    assert "Config(star, 1, 2, 3, k=5)" in to_python(Config(code.star, 1, 2, 3, k=5))
    gap = Config(code.star, 1, 2)
    del gap.a
    with pytest.raises(ConfigError, match="a: it is not set, but a later positional argument is: set it too"):
        to_python(gap)


def test_a_recipe_comes_back_with_its_overrides(code):
    config = Recipe("generated_targets:recipe", overrides=["b=2"], x=3)
    assert "Recipe('generated_targets:recipe', x=3, overrides=['b=2'])" in to_python(config)
    assert_comes_back(config)


def test_the_code_of_a_deep_config_is_shallow(code):
    config = Config(code.call)
    for _ in range(150):
        config = Config(code.call, config)
    assert_comes_back(config)
    depth = max(len(line) - len(line.lstrip()) for line in to_python(config).splitlines())
    assert depth <= 4 * 7


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.binary()
        | st.dates()
        | st.timedeltas(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    )
)
@settings(deadline=None)
def test_any_value_comes_back(code, value):
    try:
        plans.to_plan(Config(code.call, value))
    except ConfigError:  # text that is no Unicode, and other things that no plan has
        return
    assert_comes_back(Config(code.call, value))


def test_a_name_that_is_none_is_refused(code):
    with pytest.raises(ConfigError, match="not a valid name of a variable"):
        to_python(Config(code.call), "class")


def test_the_command_line_prints_it(code, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["code", "generated_targets:recipe", "more=3", "--by-name"]) == 0
    printed = capsys.readouterr().out
    ast.parse(printed)
    assert "'generated_targets:call'" in printed
    run = subprocess.run(
        [sys.executable, "-c", printed], cwd=Path(code.__file__).parent, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
