"""What two configs differ in, as text and as a picture, and the configs that are kept by digest."""

import json
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor

import pytest

from nemo_airflow import Config
from nemo_airflow.cli import main
from nemo_airflow.config import apply_overrides, diff, to_svg, to_yaml
from nemo_airflow.config import plan as plans
from nemo_airflow.config.versions import ConfigVersions
from nemo_airflow.exceptions import ConfigError, SettingsError

MODULE = """
from __future__ import annotations
from nemo_airflow import Config

class Net:
    def __init__(self, hidden: int = 8, layers: tuple = (), below: object = None): ...

class Other:
    def __init__(self, hidden: int = 8): ...

def train(net: object, rate: float = 0.1, names: list = [], again: object = None, note: str = ""): ...

base = Config(train, net=Config(Net, layers=(1, 2)), names=["a", "b"])
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    (tmp_path / "diffed.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import diffed

    yield diffed
    import sys

    del sys.modules["diffed"]


def text(old, new):
    return diff(old, new).to_text().splitlines()


def test_a_value_that_only_became_explicit_is_no_change(code):
    assert not diff(code.base, apply_overrides(code.base, {"rate": 0.1, "net.hidden": 8}))


def test_changes_are_named_by_path(code):
    new = apply_overrides(code.base, ["net.hidden=16", "names+=[c]", "rate*=2"])
    lines = text(code.base, new)
    assert "~ net.hidden: 8 -> 16" in lines
    assert "~ rate: 0.1 -> 0.2" in lines
    assert "+ names.2: 'c'" in lines
    assert text(plans.to_plan(code.base), plans.to_plan(new)) == lines  # of plans, without an import
    back = text(new, code.base)
    assert "- names.2: 'c'" in back


def test_another_target_is_said_as_that(code):
    new = Config(code.train, net=Config(code.Other), names=["a", "b"])
    assert any(line.startswith("@ net: ") and "Other" in line for line in text(code.base, new))


def test_what_became_one_object_is_a_change(code):
    apart = Config(code.train, net=Config(code.Net), again=Config(code.Net))
    net = Config(code.Net)
    assert [change.kind for change in diff(apart, Config(code.train, net=net, again=net)).changes] == ["shared"]


def test_the_picture_is_well_formed_and_holds_no_markup_of_the_config(code):
    hostile = '</text><script>alert(1)</script>" onload="x'
    old, new = Config(code.train, net=Config(code.Net)), Config(code.train, net=Config(code.Net), note=hostile)
    for svg in (to_svg(new), diff(old, new).to_svg()):
        root = ET.fromstring(svg)
        assert [e.tag for e in root.iter() if "script" in e.tag] == []
        assert all(not name.startswith("on") for element in root.iter() for name in element.attrib)
        assert "alert(1)" in "".join(root.itertext())
    assert to_svg(new) == to_svg(new)


def test_configs_are_kept_by_digest(code, tmp_path):
    versions = ConfigVersions(tmp_path / "configs")
    plan = plans.to_plan(code.base)
    with ThreadPoolExecutor(4) as threads:
        (digest,) = set(threads.map(lambda _: versions.save(plan), range(8)))
    assert digest == plans.digest(plan)
    assert versions.load(digest[:10]) == plan
    assert versions.list() == [digest]
    with pytest.raises(ConfigError, match="no config in"):
        versions.load("f" * 64)
    (file,) = (tmp_path / "configs").rglob("*.json")
    file.write_text(file.read_text().replace("diffed:train", "os:system"))
    with pytest.raises(ConfigError, match="does not match its digest"):
        versions.load(digest)
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    with pytest.raises(SettingsError, match="cannot keep the config"):
        ConfigVersions(blocked).save(plan)


def test_the_command_line_compares_code_files_and_what_was_run(code, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    changed = apply_overrides(code.base, ["net.hidden=16"])
    (tmp_path / "changed.yaml").write_text(to_yaml(changed))
    digest = ConfigVersions().save(plans.to_plan(code.base))
    assert main(["diff", "diffed:base", digest[:8]]) == 0
    assert main(["diff", digest[:8], "changed.yaml", "--svg", "diff.svg"]) == 1
    assert "net.hidden" in capsys.readouterr().out
    assert ET.parse(tmp_path / "diff.svg").getroot().tag.endswith("svg")
    assert main(["diff", "--json", "diffed:base", "changed.yaml"]) == 1
    assert any(change["path"] == "net.hidden" for change in json.loads(capsys.readouterr().out)["config"])
    assert main(["graph", "diffed:base", "net.hidden=3", "--svg", "graph.svg"]) == 0
    assert main(["diff", "nothing", "diffed:base"]) == 2
    assert "is not a config" in capsys.readouterr().err


def test_files_of_layers_are_compared_drawn_and_written_as_code(code, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("_target_: diffed.train\nnet: {_target_: diffed.Net}\n")
    (tmp_path / "top.yaml").write_text("_base_: base.yaml\nrate: 0.5\noverrides: [net.hidden*=2]\n")
    allow = ["--allow", "diffed."]
    assert main(["diff", "base.yaml", "top.yaml", *allow]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert {"~ net.hidden: 8 -> 16", "~ rate: 0.1 -> 0.5"} <= set(lines)
    assert main(["graph", "top.yaml", "rate=0.7", "--svg", "top.svg", *allow]) == 0
    assert "0.7" in (tmp_path / "top.svg").read_text()
    assert main(["code", "top.yaml", *allow]) == 0
    assert "Net, hidden=16" in capsys.readouterr().out
    assert main(["diff", "base.yaml", "top.yaml"]) == 2  # what makes up a config of layers has to be allowed
    assert "is not allowed here" in capsys.readouterr().err
    digest = ConfigVersions(tmp_path / "configs").save(plans.to_plan(code.base))
    assert main(["code", digest, "rate=1"]) == 2
    assert "is a config that was run and cannot be changed: overrides are for code and files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ([1, 2, 3], [0, 1, 2, 3], ["+ again.0: 0"]),
        ([1, 2, 3], [1, 3], ["- again.1: 2"]),
        ([1, 2, 3], [1, 5, 3], ["~ again.1: 2 -> 5"]),
        ([1, 2], [2, 1], ["~ again.0: 1 -> 2", "~ again.1: 2 -> 1"]),
        ([1, 2, 3, 4], [0, 1, 3, 4, 5], ["+ again.0: 0", "- again.1: 2", "+ again.4: 5"]),
        ({1, 2}, {2, 3}, ["+ again.1: 3", "- again.0: 1"]),
    ],
)
def test_items_are_matched_by_value(code, old, new, lines):
    assert text(Config(code.train, net=1, again=old), Config(code.train, net=1, again=new))[:-1] == lines


def test_only_what_is_one_object_and_was_not_is_said_to_be_shared(code):
    net, added = Config(code.Net), Config(code.Net)
    old = Config(code.train, net=net, again=net, names=[Config(code.Net), Config(code.Net)])
    new = Config(code.train, net=net, again=net, names=[0, added, added])
    assert not any(change.kind == "unshared" for change in diff(old, new).changes)
    apart = Config(code.train, net=Config(code.Net), again=Config(code.Net), names=old.names)
    [change] = diff(old, apart).changes
    assert change.to_text() == "/ net: no longer one object at net, again"
