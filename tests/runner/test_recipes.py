"""Recipes, resolved by the runner in an interpreter that has nothing of ours or Fiddle's installed."""

import datetime
import importlib
import json
import subprocess
import sys
import tempfile
import textwrap
from decimal import Decimal
from pathlib import Path

import pytest

import nemo_airflow
from nemo_airflow import Config, Recipe, params_from
from nemo_airflow.config import apply_overrides, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import (
    OverrideError,
    ParameterTypeError,
    TargetNotImportableError,
    UnknownParameterError,
)
from nemo_airflow.executors import shipping
from nemo_airflow.job import Job
from nemo_airflow.language.recipes import changes
from nemo_airflow.stream import Record, StreamReader

ZOO = '''
from __future__ import annotations

import dataclasses
import enum
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

import libs
from nemo_airflow import Config, Partial, autoconvert

if TYPE_CHECKING:
    import torch


class Act(enum.Enum):
    RELU = "relu"
    GELU = "gelu"


@dataclasses.dataclass
class Optim:
    """How to step.

    Attributes:
        lr: Learning rate.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    name: str = "adam"


class Net:
    def __init__(self, hidden: int, act: Act = Act.RELU, below: Optional[Net] = None, dtype: object = None):
        self.hidden, self.act, self.below, self.dtype = hidden, act, below, dtype


def loss(x, scale: float = 1.0):
    return x * scale


def train(
    net: Net, optim: Optim, loss: Callable, steps: list[int] = [1, 2], data: Path | None = None, again: Net = None
):
    return {
        "hidden": net.hidden, "act": net.act.name, "lr": optim.lr, "name": optim.name, "loss": loss(2.0),
        "steps": steps, "data": str(data), "shared": again is net, "below": net.below and net.below.hidden,
    }


def small(hidden: int = 8, act: Act = Act.RELU, rate: float = 0.1) -> Partial:
    """A small training.

    Args:
        hidden: Width of the network.
    """
    net = Config(Net, hidden=hidden, act=act)
    recipe = Partial(train, net=net, optim=Config(Optim, lr=rate), loss=Partial(loss, scale=3.0))
    recipe.again = net
    return recipe


@autoconvert
def plain(hidden: int = 8) -> dict:
    nets = [Net(hidden * (2**i)) for i in range(2)]
    return train(Net(hidden, below=nets[1]), Optim(lr=0.5), functools.partial(loss, scale=2.0))


def around(net: Net, depth: int = 1):
    for _ in range(depth):
        net = Config(Net, hidden=1, below=net)
    return Partial(train, net, Config(Optim), Partial(loss))


def strange():
    return Partial(train, Config(Net, 3, dtype=libs.bf16), Config(Optim), Partial(loss))


def fast_optim(lr: float = 8.0) -> Config:
    return Config(Optim, lr=lr)


@autoconvert
def converted_optim(lr: float):
    return Optim(lr)


def nothing():
    return {"x": 1}


def typo():
    return Partial(train, nett=1)


def star(a=0, *rest, k=1):
    return [a, list(rest), k]


def before(a=0, b=2, /, *, k=1):
    return [a, b, k]


def made(how: str) -> Partial:
    return {
        "star": lambda: Partial(star, 1, 2, 3, k=5),
        "star_alone": lambda: Partial(star, k=5),
        "before": lambda: Partial(before, 7),
        "before_alone": lambda: Partial(before, k=3),
    }[how]()


@dataclasses.dataclass
class Inputs:
    data: Path | None = None
    model: torch.nn.Module | None = None
    name: str = ""


@dataclasses.dataclass
class MoreInputs(Inputs):
    more: Path | None = None


def read(data: Path | None = None, name: str = "", model: torch.nn.Module | None = None, more: Path | None = None):
    return [str(type(value).__name__) for value in (data, name, more, model)]


def read_inputs(inputs: MoreInputs):
    return read(inputs.data, inputs.name, inputs.model, inputs.more)


def reading() -> Partial:
    return Partial(read)


def reading_inputs() -> Partial:
    return Partial(read_inputs, Config(MoreInputs))


def reading_model() -> Partial:
    import models

    return Partial(read_inputs, Config(models.Inputs))


@autoconvert(partial=True)
def converted_star():
    return star(1, 2, 3, k=5)


def both(first, second):
    return [first, second]


def of_both(second, how: str = "star"):
    return Partial(both, Config(star, 1, 2, 3, k=5), second)
'''

MODELS = """
from pathlib import Path
from typing import Any, Optional

import pydantic


class Inputs(pydantic.BaseModel):
    name: str = ""
    data: Optional[Path] = None
    more: Optional[Path] = None
    model: Any = None
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "zoo.py").write_text(ZOO)
    (folder / "libs.py").write_text("class DType: pass\nbf16 = DType()\n")
    (folder / "models.py").write_text(MODELS)
    return folder


@pytest.fixture
def run_plan(zoo, tmp_path):
    """Runs a plan as a job does, and returns how it ended, the records of its config, and the warnings."""
    shipped = shipping.install_runner(tmp_path / "runner") / shipping.ENTRY

    def run_plan(plan, allow=(), *, runner=shipped, flags=("-E", "-S")):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        (folder / "work").mkdir()
        for name in ("zoo.py", "libs.py", "models.py"):
            (folder / "work" / name).write_text((zoo / name).read_text())
        job = Job(key="k", name="n", plan=plan, allow=(*plans.targets(plan), *allow), sample_interval=0)
        (folder / "job.json").write_text(job.dumps())
        # Isolated, and by default without the site's packages: neither Fiddle nor pydantic is there.
        done = subprocess.run([sys.executable, *flags, str(runner), str(folder)], capture_output=True, timeout=300)
        records = [item for item in StreamReader().feed(done.stdout) if isinstance(item, Record)]
        end = json.loads((folder / "end.json").read_text())
        configs = [record.data["plan"] for record in records if record.type == "config"]
        warnings = [record.data["message"] for record in records if record.type == "warning"]
        return end, configs, warnings

    return run_plan


@pytest.fixture
def resolve(run_plan):
    """Runs a config as a job does, and returns how it ended, the resolved config by path, and the warnings."""

    def resolve(config, allow=(), **image):
        end, configs, warnings = run_plan(plans.to_plan(config), allow, **image)
        return end, plans.flatten(configs[0]) if configs else {}, warnings

    return resolve


def recipe(zoo, name, overrides=(), **arguments):
    return Recipe(f"zoo:{name}", overrides, source=zoo, **arguments)


def test_a_recipe_is_resolved_and_run_where_its_code_is(zoo, resolve):
    end, config, warnings = resolve(recipe(zoo, "small", hidden=16, rate=0.5))
    assert end["state"] == "succeeded", end
    assert end["result"] == {
        "hidden": 16, "act": "RELU", "lr": 0.5, "name": "adam", "loss": 6.0, "steps": [1, 2], "data": "None",
        "shared": True, "below": None,
    }  # fmt: skip
    assert config["_target_"] == "zoo:train"
    assert config["net"] == "zoo:Net"
    assert (config["net.hidden"], config["net.act"], config["optim.lr"]) == ("16", "RELU", "0.5")
    assert config["optim.betas.0"] == "0.9"
    assert config["again"] == "same as net"
    assert warnings == []


def test_overrides_of_what_it_returns_are_typed_in_the_job(zoo, resolve):
    texts = [
        "hidden=4", "net.act=GELU", "optim.lr*=2", "optim.name=1e5", "steps+=[3]", "data=/tmp/x", "loss.scale=5",
        "net.below=zoo:Net(hidden=2)", "steps[0]=7",
    ]  # fmt: skip
    config = recipe(zoo, "small", texts, rate=0.25)
    assert config.hidden == 4
    assert config.__recipe_overrides__ == [text.replace("[0]=", "[0]=") for text in texts[1:]]
    end, resolved, _ = resolve(config)
    assert end["state"] == "succeeded", end
    assert end["result"] == {
        "hidden": 4, "act": "GELU", "lr": 0.5, "name": "1e5", "loss": 10.0, "steps": [7, 2, 3], "data": "/tmp/x",
        "shared": True, "below": 2,
    }  # fmt: skip
    assert resolved["net.below"] == "zoo:Net"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("net.hiden=3", "Net has no parameter 'hiden' at net; did you mean 'hidden'?"),
        ("optim.lr=fast", "optim.lr: expected float, got 'fast'"),
        ("net.act=TANH", "net.act: expected Act (RELU, GELU), got 'TANH'"),
        ("net.below.hidden=1", "net.below is None and has nothing below it; write net.below=Net(hidden=1)"),
        ("steps.9=1", "this list has no item '9' at steps; valid: 0, 1"),
        ("net.below=os:system(hidden=1)", "target 'os:system' is not allowed here"),
        ("optim.lr+=[1]", "+= cannot be used with a value of type float and a value of type list"),
    ],
)
def test_an_override_that_does_not_fit_ends_the_job_in_one_line(zoo, resolve, override, message):
    end, _, _ = resolve(recipe(zoo, "small", [override]))
    assert end["state"] == "failed"
    assert message in end["error"]["message"]
    assert end["error"]["message"].endswith(f"(override {override!r})")
    assert "\n" not in end["error"]["message"]
    assert end["error"]["traceback"] == ""


def test_no_file_is_read_for_a_recipe_by_whoever_may_not_and_none_in_a_job(zoo):
    with pytest.raises(OverrideError, match=r"data: @secret\.yaml: overrides from .* may not read files"):
        recipe(zoo, "small", ["data=@secret.yaml"])
    with pytest.raises(OverrideError, match=r"data: @secret\.yaml: overrides from the job may not read files"):
        changes.apply({"data": 1}, "data=@secret.yaml", [])


@pytest.mark.parametrize(
    ("name", "below", "image"),
    [
        ("reading", "", {}),
        ("reading_inputs", "inputs.", {}),
        ("reading_model", "inputs.", {"flags": ["-E"]}),  # which has pydantic
    ],
)
def test_an_annotation_that_the_job_cannot_resolve_leaves_the_others_typed(zoo, resolve, name, below, image):
    texts = [f"{below}{text}" for text in ("data=/x", "name=3", "more=/y", "model=5")]
    end, _, _ = resolve(recipe(zoo, name, texts), **image)
    assert end["state"] == "succeeded", end
    assert end["result"] == ["PosixPath", "str", "PosixPath", "int"]


@pytest.mark.parametrize("override", ["optim=zoo:fast_optim()", "optim=zoo:converted_optim(lr=8.0)"])
def test_a_factory_of_configs_in_an_override_is_called_in_the_job(zoo, resolve, override):
    end, config, _ = resolve(recipe(zoo, "small", [override]), allow=["zoo."])
    assert end["state"] == "succeeded", end
    assert (config["optim"], config["optim.lr"]) == ("zoo:Optim", "8.0")
    assert end["result"]["lr"] == 8.0


@pytest.mark.parametrize(
    ("override", "kind", "message"),
    [
        ("net.below=zoo:Nett(hidden=2)", TargetNotImportableError, "module 'zoo' has no 'Nett'; did you mean 'Net'"),
        ("net.below=zoo.nets:Net(hidden=2)", TargetNotImportableError, "no module 'zoo.nets' under"),
        ("net.below=zoo:Net(hiden=2)", UnknownParameterError, "net.below.hiden: Net has no parameter 'hiden'; did you"),
        ("net.below=zoo:Net(hidden=x)", ParameterTypeError, "net.below.hidden: expected int, got 'x'"),
        (
            "net.below=Net(hidden=2, below=zoo:Net(hidden=x))",
            ParameterTypeError,
            "net.below.below.hidden: expected int",
        ),
        (
            "optim=Optm(lr=1)",
            OverrideError,
            "no recipe 'Optm' is registered, and the modules of the config have no such name",
        ),
        ("optim=libs:DTyp()", TargetNotImportableError, "module 'libs' has no 'DTyp'; did you mean 'DType'"),
    ],
)
def test_a_factory_of_the_shipped_code_in_an_override_is_checked_before_anything_is_submitted(
    zoo, override, kind, message
):
    with pytest.raises(kind) as caught:
        recipe(zoo, "small", [override])
    assert message in str(caught.value)
    assert {"zoo", "libs"}.isdisjoint(sys.modules)


def test_factories_in_overrides_are_those_of_the_folder_and_not_of_others_of_that_name(
    zoo, resolve, tmp_path, monkeypatch
):
    other = tmp_path / "other"
    other.mkdir()
    (other / "zoo.py").write_text("class Net:\n    def __init__(self, width: int): ...\n")
    monkeypatch.syspath_prepend(other)
    importlib.import_module("zoo")  # what is imported here is not a valid value of the job gets
    try:
        given = recipe(zoo, "around", ["net=zoo:Net(hidden=3, act=GELU)", "optim=Optim(lr=0.5)"])
        beside = recipe(zoo, "around", ["net=Net(hidden=3)"], net=Config(given.net.__fn_or_cls__, hidden=1))
        with pytest.raises(UnknownParameterError, match=r"net\.width: Net has no parameter 'width'"):
            recipe(zoo, "around", ["net=zoo:Net(width=3)"])
    finally:
        del sys.modules["zoo"]
    assert beside.net.hidden == 3
    assert given.__recipe_overrides__ == ["optim=zoo:Optim(lr=0.5)"]
    end, _, _ = resolve(given)
    assert end["state"] == "succeeded", end
    assert (end["result"]["below"], end["result"]["lr"]) == (3, 0.5)


def test_a_factory_that_only_the_job_may_know_is_left_to_it(zoo, tmp_path):
    (tmp_path / "shop.py").write_text(
        "from torchlike.optim import Adam\nimport torchlike.nn\n\nLinear = torchlike.nn.Linear\n\ndef make(): ...\n"
    )
    texts = ["a=torchlike.optim:Adam(lr=1)", "b=shop:Adam(lr=1)", "c=shop:Linear(3)"]
    assert Recipe("shop:make", texts, source=tmp_path).__recipe_overrides__ == texts
    in_image = Recipe("shop:make", ["a=Anything(lr=1)", "b=shop:Nothing()"], in_image=True)
    assert in_image.__recipe_overrides__ == ["a=Anything(lr=1)", "b=shop:Nothing()"]


@pytest.mark.parametrize(
    "image",
    [
        {},
        {"flags": ["-E"]},
        {"flags": ["-E"], "runner": Path(nemo_airflow.__file__).parent / "runner" / "__main__.py"},
    ],
    ids=["nothing_installed", "provider_installed", "runner_of_the_provider"],
)
def test_autoconvert_makes_a_config_of_a_plain_function_whatever_the_image_has(zoo, resolve, image):
    end, config, _ = resolve(recipe(zoo, "plain", ["optim.lr=0.75"], hidden=3), **image)
    assert end["state"] == "succeeded", end
    assert (end["result"]["hidden"], end["result"]["below"], end["result"]["lr"]) == (3, 6, 0.75)
    assert config["net.below.hidden"] == "6"
    assert config["loss.scale"] == "2.0"


def test_a_config_among_the_arguments_is_handed_on_as_one_even_deep(zoo, resolve):
    net = Config(Recipe("zoo:Net", source=zoo, hidden=1).__fn_or_cls__, hidden=5)
    end, config, _ = resolve(recipe(zoo, "around", net=net, depth=40))
    assert end["state"] == "succeeded", end
    assert config["net" + ".below" * 40 + ".hidden"] == "5"


@pytest.mark.parametrize(
    ("name", "overrides", "result"),
    [
        ("made star", [], [1, [2, 3], 5]),
        ("made star", ["a=9"], [9, [2, 3], 5]),
        ("made star", ["k=9"], [1, [2, 3], 9]),
        ("made star_alone", [], [0, [], 5]),
        ("made before", [], [7, 2, 1]),
        ("made before_alone", [], [0, 2, 3]),
        ("converted_star", [], [1, [2, 3], 5]),
    ],
)
def test_arguments_by_position_and_by_name_reach_the_call_and_its_record(zoo, run_plan, name, overrides, result):
    name, _, how = name.partition(" ")
    config = recipe(zoo, name, overrides, **({"how": how} if how else {}))
    end, (resolved,), _ = run_plan(plans.to_plan(config))
    assert end["state"] == "succeeded", end
    assert end["result"] == result
    again, _, _ = run_plan(resolved)  # what was recorded makes the same call
    assert again["result"] == result


def test_arguments_beside_a_recipe_reach_their_call(zoo, resolve):
    star = Config(Recipe("zoo:star", source=zoo).__fn_or_cls__, 4, 5, 6, k=7)
    end, config, _ = resolve(recipe(zoo, "of_both", second=star))
    assert end["state"] == "succeeded", end
    assert end["result"] == [[1, [2, 3], 5], [4, [5, 6], 7]]
    assert [config[f"second.{key}"] for key in ("0", "1", "2", "k")] == ["4", "5", "6", "7"]


def test_what_a_plan_cannot_hold_is_run_and_recorded_as_text(zoo, resolve):
    end, config, warnings = resolve(recipe(zoo, "strange"))
    assert end["state"] == "succeeded", end
    assert config["net.dtype"] == "<libs.DType object>"
    assert "net.dtype" in warnings[0]


def test_a_function_that_returns_no_config_is_called_for_its_value(zoo, resolve):
    end, _, _ = resolve(recipe(zoo, "nothing"))
    assert end["result"] == {"x": 1}
    with pytest.raises(OverrideError):
        recipe(zoo, "nothing", "x=1")


def test_overrides_of_no_config_say_what_to_do(zoo, resolve):
    end, _, _ = resolve(recipe(zoo, "nothing", ["x=2"]))
    assert "zoo:nothing returned dict, not a config" in end["error"]["message"]
    assert "@autoconvert" in end["error"]["message"]


def test_a_mistake_in_the_factory_is_its_own_traceback(zoo, resolve):
    end, _, _ = resolve(recipe(zoo, "typo"))
    assert end["error"]["message"].startswith("train has no parameter 'nett'; did you mean 'net'?")
    assert "in typo" in end["error"]["traceback"]


def test_wrong_names_and_types_fail_before_anything_is_submitted(zoo):
    with pytest.raises(UnknownParameterError, match="small has no parameter 'hiden'; did you mean 'hidden'"):
        recipe(zoo, "small", hiden=1)
    with pytest.raises(ParameterTypeError, match=r"small\.hidden: expected int, got 'x'"):
        recipe(zoo, "small", hidden="x")
    with pytest.raises(ParameterTypeError, match="rate: expected float"):
        recipe(zoo, "small", ["rate=fast"])
    with pytest.raises(TargetNotImportableError, match="module 'zoo' has no 'smal'; did you mean 'small'"):
        recipe(zoo, "smal")
    with pytest.raises(TargetNotImportableError, match="in_image=True"):
        Recipe("no_such_package_here:small")
    assert "zoo" not in sys.modules


def test_it_has_a_trigger_form_and_takes_overrides_of_a_run(zoo):
    config = recipe(zoo, "small")
    params = params_from(config, prefix="t")
    assert params["t.hidden"].value == 8
    assert params["t.hidden"].description == "Width of the network."
    assert params["t.act"].schema["enum"] == ["RELU", "GELU"]
    changed = apply_overrides(config, {"hidden": 3, "net.dtype": "x"})
    assert changed.hidden == 3
    assert changed.__recipe_overrides__ == ["net.dtype=x"]
    assert config.__recipe_overrides__ == []
    validate(changed)
    assert "hidden=3" in repr(changed)
    assert "overrides=['net.dtype=x']" in repr(changed)  # or Airflow would not see that the DAG has changed
    assert plans.from_plan(plans.to_plan(changed), allow=["zoo."]).__recipe_overrides__ == ["net.dtype=x"]


def test_one_that_only_the_image_has_is_checked_there(zoo, resolve):
    end, _, _ = resolve(Recipe("zoo:small", ["optim.lr=0.5"], in_image=True, hidden=2))
    assert (end["result"]["hidden"], end["result"]["lr"]) == (2, 0.5)


def test_a_recipe_of_fiddles_own_configs(tmp_path, monkeypatch):
    (tmp_path / "fiddled.py").write_text(
        textwrap.dedent(
            """
            import fiddle as fdl
            from fiddle.experimental import auto_config

            class Net:
                def __init__(self, hidden=1, parts=()): self.hidden, self.parts = hidden, parts

            class Other(fdl.Config): pass  # of a library that is built on Fiddle

            class Part(fdl.Partial): pass

            def make(): return fdl.Config(Net, 2, parts=[Other(Net, 3), Part(Net, 4)])

            @auto_config.auto_config
            def auto(): return Net(4)

            def star(a, *rest, k=1): return [a, list(rest), k]

            def starred(): return fdl.Config(star, 1, 2, 3, k=5)
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    from nemo_airflow.language.recipes import resolve as runner

    def built(name, *overrides):
        node = {"_target_": f"fiddled:{name}", "_recipe_": {"overrides": list(overrides)}}
        return runner.build({"version": 1, "root": node}, ["fiddled."])

    net, plan, _ = built("make", "parts.0.hidden=7")
    assert (net.hidden, net.parts[0].hidden, net.parts[1]().hidden) == (2, 7, 4)
    assert plan["root"]["parts"][0] == {"_target_": "fiddled:Net", "hidden": 7, "parts": {"_tuple_": []}}
    assert built("auto", "hidden=6")[0].hidden == 6
    starred, plan, _ = built("starred")
    assert starred == [1, [2, 3], 5]
    assert plan["root"] == {"_target_": "fiddled:star", "_args_": [1, 2, 3], "k": 5}


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 0.5, float("nan"), float("-inf"), "x", b"\x00", Path("a/b"), Decimal("0.10"), (1, (2,)), {1, 2},
        frozenset("a"), {"a": [1]}, {1: "a"}, {"_id_": 1}, datetime.date(2026, 1, 2), datetime.time(1, 2, 3, 4),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(seconds=1.5),
        datetime.timedelta(days=999_999, microseconds=1), len, OverrideError,
    ],
)  # fmt: skip
def test_the_job_writes_a_value_as_this_side_does(value):
    from nemo_airflow.language.recipes import tree as resolved

    recorded, as_text = resolved.record(value)
    assert plans.dumps(recorded) == plans.dumps(plans.to_plan(value))
    assert as_text == []


def test_a_data_folder_named_as_a_module_of_python_permits_nothing(tmp_path):
    from nemo_airflow.runner import shipped

    for name in ("subprocess", "pkg", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "subprocess" / "x.py").write_text("")
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "data" / "numbers.csv").write_text("")
    (tmp_path / "os.py").write_text("")
    (tmp_path / "mine.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from nemo_airflow.runner import shipped; "
    code += f"print(*shipped.prefixes([{str(tmp_path)!r}]))"
    done = subprocess.run([sys.executable, "-c", "import os, subprocess; " + code], capture_output=True, text=True)
    assert done.stdout.split() == ["mine.", "pkg."], done.stderr
    assert shipped.prefixes([str(tmp_path / "nowhere")]) == ()
