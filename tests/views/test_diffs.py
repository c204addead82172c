"""What two configs differ in, as text, tree and flowchart, and the configs that are kept by digest."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from nemo_airflow import Config
from nemo_airflow.cli import main
from nemo_airflow.config import apply_overrides, diff, to_mermaid, to_tree, to_yaml
from nemo_airflow.config import plan as plans
from nemo_airflow.config.plan.versions import ConfigVersions
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


def nets(code):
    shared = Config(code.Net)
    old = Config(code.train, net=Config(code.Net, below=shared), again=[shared, {"a": 1}], names=[1, 2])
    return old, apply_overrides(
        old, ["net.hidden=16", "names~=[2]", 'note=a"<b>', "again+=[diffed:Other()]"], allow=["diffed."]
    )


def test_a_tree_has_a_line_for_each_value_with_the_sign_of_its_change(code):
    old, new = nets(code)
    assert (
        to_tree(old)
        == """\
train
  net: Net
    hidden: 8
    layers: ()
    below: Net
      hidden: 8
      layers: ()
      below: None
  rate: 0.1
  names: [1, 2]
  again:
    0: Net, as net.below
    1: {'a': 1}
  note: ''
"""
    )
    lines = diff(old, new).to_tree().splitlines()
    assert [line for line in lines if line[0] != " "] == [
        "~     hidden: 8 -> 16",
        "-     1: 2",
        "+     2: Other",
        "~   note: '' -> 'a\"<b>'",
    ]
    assert [line[2:] for line in lines if line[0] in " +"] == [
        line
        for line in to_tree(new).replace("names: [1]", "names:\n    0: 1").splitlines()
        if line[-2:] not in ("16", ">'")
    ]


def test_a_flowchart_has_a_box_for_each_config_and_no_markup_of_its_values(code):
    old, new = nets(code)
    chart = to_mermaid(new)
    assert chart.splitlines()[:2] == [
        "flowchart LR",
        "  n0[\"train<br>rate = 0.1<br>names = [1]<br>again.1 = {'a': 1}<br>note = 'a#34;#60;b#62;'\"]",
    ]
    assert chart.count("Net<br>") == 2
    assert chart.splitlines()[-4:] == [
        '  n0 -->|"net"| n1',
        '  n0 -.->|"again.0"| n2',
        '  n0 -->|"again.2"| n3',
        '  n1 -.->|"below"| n2',
    ]
    changed = diff(old, new).to_mermaid().splitlines()
    assert {"  class n3 added", "  class n0,n1 changed"} <= set(changed)
    assert changed[1].count("no more: names.1 = 2") == 1


def test_a_large_or_deep_config_is_shown_from_its_root(code):
    wide = Config(code.train, net=1, names=[Config(code.Net) for _ in range(1500)])
    assert len(to_tree(wide).splitlines()) == 2001
    assert to_tree(wide).endswith("more than 2000 lines\n")
    assert to_mermaid(wide).count("-->") < 120
    deep, shared = Config(code.Net), [Config(code.Net)]
    for _ in range(190):
        deep, shared = Config(code.Net, below=deep), [shared, shared]
    assert len(to_tree(deep).splitlines()) == 1 + 3 * 191
    assert len(to_tree(Config(code.train, net=shared))) < 200_000
    assert len(to_mermaid(Config(code.train, net=shared))) < 200_000


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
    assert main(["diff", digest[:8], "changed.yaml"]) == 1
    assert "net.hidden" in capsys.readouterr().out
    assert main(["diff", digest[:8], "changed.yaml", "-o", "tree"]) == 1
    assert "~     hidden: 8 -> 16" in capsys.readouterr().out
    assert main(["diff", digest[:8], "changed.yaml", "-o", "mermaid"]) == 1
    assert "hidden = 8 -#62; 16" in capsys.readouterr().out
    assert main(["diff", ".", ".", "-o", "tree"]) == 2
    assert "a folder has none" in capsys.readouterr().err
    assert main(["diff", "--json", "diffed:base", "changed.yaml"]) == 1
    assert any(change["path"] == "net.hidden" for change in json.loads(capsys.readouterr().out)["config"])
    assert main(["graph", "diffed:base", "net.hidden=3"]) == 0
    assert "hidden: 3" in capsys.readouterr().out
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
    assert main(["graph", "top.yaml", "rate=0.7", "-o", "mermaid", *allow]) == 0
    assert "rate = 0.7" in capsys.readouterr().out
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
