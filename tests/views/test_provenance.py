"""Who set what in a config, and where; what Fiddle's tags and selectors set is checked and told too."""

import inspect
import subprocess
import sys

import fiddle as fdl
import pytest
from fiddle import selectors, tagging

from nemo_airflow import Config, Partial
from nemo_airflow.config import apply_overrides, history
from nemo_airflow.config import plan as plans
from nemo_airflow.config.views.provenance import history_text
from nemo_airflow.exceptions import ParameterTypeError, UnknownParameterError

MODULE = """
import fiddle as fdl
from nemo_airflow import Config

class Rate(fdl.Tag):
    "Learning rates."

class Net:
    def __init__(self, hidden: int = 8): ...

def train(net: Net, rate: float = 0.1, other: Net | None = None): ...

def experiment():
    return Config(train, net=Config(Net), rate=0.3)
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    (tmp_path / "provenant.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import provenant

    yield provenant
    del sys.modules["provenant"]


def line():
    return inspect.currentframe().f_back.f_lineno


def lines_of(config, path):
    return [(setting.value, setting.line) for setting in history(config, path) if setting.kind != "tags"]


def test_each_value_is_told_with_the_line_that_set_it_the_newest_first(code):
    first = line() + 1
    config = Config(code.train, net=Config(code.Net), rate=0.1)
    config.rate = 0.2
    del config.rate
    config = apply_overrides(config, ["net.hidden=4"])
    assert lines_of(config, "rate") == [("", first + 2), ("0.2", first + 1), ("0.1", first)]
    assert lines_of(config, "net.hidden") == [("4", first + 3)]
    config = apply_overrides(config, ["net.hidden=5"], origin="the trigger form")
    assert history(config, "net.hidden")[0].where.endswith("the trigger form")
    (whole,) = [setting for setting in history(config) if setting.path == ""]
    assert (whole.kind, whole.value, whole.function) == (
        "target",
        "train",
        test_each_value_is_told_with_the_line_that_set_it_the_newest_first.__name__,
    )
    assert history_text(config, "rate").splitlines()[1].startswith("    before: 0.2  # ")


def test_selectors_and_tags_set_checked_values_and_are_told(code):
    net = Config(code.Net)
    config = Config(code.train, net=net, other=net)
    begun = line()
    selectors.select(config, code.Net).set(hidden=16)
    fdl.add_tag(config, "rate", code.Rate)
    tagging.set_tagged(config, tag=code.Rate, value=0.5)
    assert (net.hidden, config.rate) == (16, 0.5)
    assert lines_of(config, "net.hidden") == [("16", begun + 1)]
    assert lines_of(config, "rate") == [("0.5", begun + 3)]
    assert [(s.value, s.line) for s in history(config, "rate") if s.kind == "tags"] == [("Rate", begun + 2)]
    assert not [setting for setting in history(config) if setting.path.startswith("other.")]  # told where it is first
    with pytest.raises(ParameterTypeError, match="expected int, got 'wide'"):
        selectors.select(config, code.Net).set(hidden="wide")
    with pytest.raises(ParameterTypeError, match="expected float, got 'fast'"):
        tagging.set_tagged(config, tag=code.Rate, value="fast")
    assert (net.hidden, config.rate) == (16, 0.5)


def test_fiddles_copies_and_casts_keep_the_history(code):
    config = Config(code.train, net=Config(code.Net))
    config.rate = 0.2
    where = line() - 1
    assert lines_of(fdl.copy_with(config, other=None), "rate") == [("0.2", where)]
    assert lines_of(fdl.deepcopy_with(config, other=None), "rate") == [("0.2", where)]
    assert fdl.cast(Partial, config).rate == 0.2


def test_what_was_read_from_a_plan_is_told_with_the_line_that_read_it(code):
    plan = plans.to_plan(Config(code.train, net=Config(code.Net, hidden=3)))
    first, second = plans.from_plan(plan, ["provenant."]), line()
    again = plans.from_plan(plan, ["provenant."])
    assert [setting.line for setting in history(first, "net.hidden")] == [second]
    assert {setting.line for setting in history(again)} == {second + 1}
    assert {setting.file for setting in history(again)} == {__file__}


def test_a_path_that_never_was_is_refused(code):
    with pytest.raises(UnknownParameterError, match="nothing was ever set at it"):
        history(Config(code.train), "nett")


def test_the_command_line_tells_it(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "nemo_airflow.cli", "history", "provenant:experiment", "rate=0.4", "--path", "rate"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    newest, older = done.stdout.splitlines()
    assert newest.startswith("rate = 0.4  # ")
    assert older == "    before: 0.3  # provenant.py:14 in experiment"
