"""Values of configs against the annotations of their targets."""

import collections.abc
import copy
import dataclasses
import datetime
import functools
import pathlib
import pickle
import sys
import types
import typing

import fiddle as fdl
import pytest
from config_targets import (
    BigModel,
    Color,
    Data,
    Experiment,
    LongExperiment,
    Model,
    Optimizer,
    constrained,
    double,
    identity,
    make_int,
    make_model,
    positional,
    train,
    unresolvable,
    use_experiment,
)
from model_targets import Aliased, OnlyAliased
from tag_targets import Layer, Slow

from nemo_airflow import Config, Partial, Script
from nemo_airflow.config import apply_overrides, build, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.config.types.checks import check
from nemo_airflow.config.types.parameters import parameters_of
from nemo_airflow.exceptions import (
    ConfigError,
    MissingParameterError,
    ParameterTypeError,
    TargetNotImportableError,
    UnknownParameterError,
)


class Output:
    """Looks like the output of another task, as Airflow's do."""

    def iter_references(self):
        return []

    def resolve(self, context):
        return None


def error_of(make, kind=ParameterTypeError):
    with pytest.raises(kind) as caught:
        make()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(Model, hidden="x"), "Model.hidden: expected int, got 'x'"),
        (lambda: Config(Model, hidden=True), "Model.hidden: expected int, got True"),
        (lambda: Config(Model, hidden=1.0), "Model.hidden: expected int, got 1.0"),
        (lambda: Config(Model, hidden=1, dropout="0.5"), "Model.dropout: expected float, got '0.5'"),
        (
            lambda: Config(Model, hidden=1, activation="gelu"),
            "Model.activation: expected one of 'relu', 'tanh', got 'gelu'",
        ),
        (lambda: Config(Optimizer, color="RED"), "Optimizer.color: expected Color (RED, BLUE), got 'RED'"),
        (lambda: Config(Optimizer, betas=(0.9, "x")), "Optimizer.betas.1: expected float, got 'x'"),
        (lambda: Config(Optimizer, layers=[1, "x"]), "Optimizer.layers.1: expected int, got 'x'"),
        (lambda: Config(train, names={"a": [1, "2"]}), "train.names.a.1: expected int, got '2'"),
        (lambda: Config(train, names={"a b": "2"}), "train.names['a b']: expected list[int], got '2'"),
        (lambda: Config(train, names={3: []}), "train.names: the key 3: expected str, got 3"),
        (
            lambda: Config(train, model=Config(Optimizer)),
            "train.model: expected Model, got Config(config_targets.Optimizer)",
        ),
        (lambda: Config(train, model=Partial(Model)), "train.model: expected Model, got Partial(config_targets.Model)"),
        (
            lambda: Config(train, epochs=Config(make_model)),
            "train.epochs: expected int, got Config(config_targets.make_model)",
        ),
        (lambda: Config(train, callback=3), "train.callback: expected a callable, got 3"),
        (
            lambda: Config(train, callback=Config(Model, 1)),
            "train.callback: expected a callable, got Config(config_targets.Model)",
        ),
        (lambda: Config(train, optimizer={"lr": 1.0}), "train.optimizer: expected Optimizer, got {'lr': 1.0}"),
        (lambda: Config(Data, path="/x"), "Data.path: expected Path, got '/x'"),
        (lambda: Config(train, start="2026-01-01"), "train.start: expected date, got '2026-01-01'"),
        (lambda: Config(constrained, rate=-1.0), "constrained.rate: input should be greater than 0, got -1.0"),
        (lambda: Config(constrained, rate=1.0, kinds={3}), "constrained.kinds: expected str, got 3"),
        (lambda: Config(constrained, rate=1.0, size=1.5), "constrained.size: expected int | str, got 1.5"),
        (lambda: Config(positional, "a"), "positional.0: expected int, got 'a'"),
        (lambda: Config(positional, 1, "b", 1.0, "c"), "positional.3: expected float, got 'c'"),
        (lambda: Config(positional, 1, other="x"), "positional.other: expected int, got 'x'"),
        (lambda: Partial(Model, hidden="x"), "Model.hidden: expected int, got 'x'"),
        (lambda: Script(path="a.sh", args="x"), "run.args: expected Sequence[str], got 'x'"),
        (lambda: Experiment(name=1), "Experiment.name: expected str, got 1"),
    ],
)
def test_wrong_value_is_refused_when_set_with_its_parameter(make, message):
    assert error_of(make) == message


@pytest.mark.parametrize(
    "make",
    [
        lambda: Config(Model, hidden=1, dropout=1),
        lambda: Config(Model, hidden=Config(make_int)),
        lambda: Config(Model, hidden=1, dropout=Config(make_int)),
        lambda: Config(Optimizer, layers=[1, Config(make_int)], betas=(0.1, Config(make_int))),
        lambda: Config(train, model=Config(BigModel, 1), optimizer=Optimizer(), callback=double),
        lambda: Config(train, model=Config(make_model), callback=Partial(double)),
        lambda: Config(train, model=Config(Model.small, hidden=1), start=datetime.date(2026, 1, 1)),
        lambda: Config(train, optimizer=None, names={"a": [1]}),
        lambda: Config(train, epochs="{{ params.epochs }}", model=Output(), names={"a": ["{{ x }}", Output()]}),
        lambda: Config(unresolvable, a="anything", b=1, c="anything"),
        lambda: Config(Data, path=pathlib.Path("/x")),
        lambda: Config(use_experiment, experiment=Experiment(name="a")),
    ],
)
def test_fitting_value_is_accepted_and_kept_as_it_is(make):
    config = make()
    assert config.__arguments__
    for name, value in config.__arguments__.items():
        assert getattr(config, name) is value
        assert check(parameters_of(config.__fn_or_cls__).find(name).annotation, value) is None


def test_assignment_is_checked_as_the_constructor_is():
    config = Config(train, model=Config(Model, hidden=1))
    config.model.hidden = 2

    def assign():
        config.model.hidden = "x"

    assert error_of(assign) == "Model.hidden: expected int, got 'x'"
    assert config.model.hidden == 2


def test_annotation_that_cannot_be_resolved_leaves_the_others_checked():
    assert error_of(lambda: Config(unresolvable, b="x")) == "unresolvable.b: expected int, got 'x'"


class Structural(typing.Protocol):
    attribute: int


class Typed(typing.TypedDict):
    size: int


T = typing.TypeVar("T", bound=int)
UserId = typing.NewType("UserId", int)


class Broken:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        raise RuntimeError("no schema")


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int | None, [1, None], ["1", 1.0, False]),
        (typing.Optional[typing.List[int]], [[1], None], [["1"], (1,)]),  # noqa: UP006, UP045
        (typing.Literal[1, "a"], [1, "a"], [True, 2, "b"]),
        (collections.abc.Sequence[int], [[1], (1,)], ["1", [1.0], {1}]),
        (collections.abc.Iterable[int], [[1], (1,), {1}, {1: "x"}], ["1", ["1"], 1]),
        (collections.abc.Iterable[str], [["1"], "text"], [[1], 1]),
        (collections.abc.Mapping[str, float], [{"a": 1}], [{"a": "1"}, {1: 1.0}, []]),
        (set[int], [{1}, set()], [[1], {"1"}]),
        (tuple[int, ...], [(1, 2), ()], [[1], ("1",)]),
        (type[int], [int, bool], [str, 1]),
        (Typed, [{"size": 1}, {"size": Config(make_int)}], [{"size": "1"}, {}, {"size": 1, "x": 2}]),
        (T, [1], ["1"]),
        (UserId, [1], ["1"]),
        (collections.abc.Callable, [double, Partial(double)], [1]),
        (datetime.timedelta, [datetime.timedelta(1)], [1, "1"]),
        (bytes, [b"a"], ["a"]),
        (typing.Annotated[int, "some note"], [1], ["1"]),
        (Color, [Color.RED], ["RED", "r"]),
        (Color | None, [Color.RED, None], ["r"]),
        (typing.Final[int], [1], ["1"]),
        (object, [1, "a", None], []),
        (typing.Any, [1, "a", None], []),
        (Structural, [types.SimpleNamespace(attribute=1)], [1, "a"]),
        (Broken, [1, "a"], []),
        (list["Undefined"], [[1]], []),  # noqa: F821
        (3, [1, "a"], []),
    ],
)
def test_each_annotation_takes_what_fits_it_and_refuses_what_does_not(annotation, good, bad):
    for value in good:
        assert check(annotation, value) is None, value
    for value in bad:
        assert check(annotation, value) is not None, value


def test_unknown_parameter_names_the_nearest_and_the_valid():
    message = error_of(lambda: Config(Model, hiden=1), UnknownParameterError)
    assert message == "Model has no parameter 'hiden'; did you mean 'hidden'? valid: hidden, activation, dropout"

    config = Config(Model, hidden=1)

    def assign():
        config.hiden = 1

    assert error_of(assign, UnknownParameterError) == message
    assert error_of(lambda: Config(double, 1, 2), UnknownParameterError).startswith("double does not take 2 positional")
    assert "twice" in error_of(lambda: Config(double, 1, x=2), UnknownParameterError)


def test_validation_names_the_whole_path():
    config = Config(train, model=Config(Model, hidden=1), names={"a": [1]}, data=Data(seed="x"))
    assert error_of(lambda: validate(config)) == "data.seed: expected int, got 'x'"

    config.data = None
    config.names["a"].append("x")  # no assignment, so it is found later
    assert error_of(lambda: validate(config)) == "names.a.1: expected int, got 'x'"
    assert error_of(lambda: build([config])) == "0.names.a.1: expected int, got 'x'"
    with pytest.raises(ParameterTypeError, match=r"train\.names\.a\.1: expected int, got 'x'"):
        fdl.build(config)


def test_missing_parameter_is_named_with_its_path():
    message = error_of(lambda: validate(Config(train, model=Config(Model))), MissingParameterError)
    assert message == "model.hidden: Model requires this parameter, and it is not set"
    assert error_of(lambda: validate(Config(positional)), MissingParameterError).startswith("a: ")
    assert error_of(lambda: build(Config(train)), MissingParameterError).startswith("model: ")


def test_partial_has_to_be_complete_only_where_the_job_calls_it():
    assert error_of(lambda: validate(Partial(double)), MissingParameterError).startswith("x: ")
    validate(Config(train, model=Config(Model, 1), callback=Partial(double)))
    assert build(Partial(double))(4) == 8


@pytest.mark.parametrize("value", ["{{ ds }}", "{% if a %}1{% endif %}", Output()])
def test_value_that_is_yet_to_come_is_refused_when_validated(value):
    config = Config(train, model=Config(Model, hidden=1), names={"a": value})
    for check_it in (validate, build):
        message = error_of(lambda check_it=check_it: check_it(config), ConfigError)
        assert message.startswith("names.a: ")
        assert "in a config given to an operator" in message


def test_value_that_holds_itself_is_refused():
    loop = {"a": []}
    loop["a"].append(loop)
    assert error_of(lambda: validate(Config(Data, seed=1) and loop), ConfigError) == "a.0: the value contains itself"


def local_function():
    def inner(x: int = 1) -> int:
        return x

    return inner


def dag_file_function():
    module = types.ModuleType("unusual_prefix_0123_dag")
    exec("def task(x=1): return x\nclass Thing: pass", module.__dict__)
    sys.modules[module.__name__] = module
    return module


@dataclasses.dataclass
class Callable_:
    x: int = 1

    def __call__(self):
        return self.x


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (lambda x: x, "cannot import a lambda: define a function in a module beside the DAG file"),
        (local_function(), "defined inside a function: move it to a module beside the DAG file and import it"),
        (dag_file_function().task, "from a DAG file: move it to a module beside the DAG file"),
        (dag_file_function().Thing, "from a DAG file: move it to a module beside the DAG file"),
        (functools.partial(double), "use Partial(function, ...)"),
        (Model(1).method, "Model.method bound to an object"),
        (Callable_(), "not a function or class"),
        (functools.lru_cache(double), "is something else"),
        (list[int], "not a function or class"),
        (3, "not a function or class"),
    ],
)
@pytest.mark.parametrize("kind", [Config, Partial])
def test_target_that_a_job_could_not_import_is_refused_at_once(kind, target, says):
    assert says in error_of(lambda: kind(target), TargetNotImportableError)


def test_function_of_main_is_refused(monkeypatch):
    monkeypatch.setattr(double, "__module__", "__main__")
    assert "from __main__: move it" in error_of(lambda: Config(double), TargetNotImportableError)


def test_lambda_as_a_value_is_refused_with_its_parameter():
    message = error_of(lambda: Config(train, callback=lambda x: x), TargetNotImportableError)
    assert message.startswith("train.callback: a job cannot import a lambda")


def test_validate_of_a_dataclass_is_called_with_the_values():
    config = Config(train, model=Config(Model, 1), optimizer=Config(Optimizer, lr=-1.0))
    assert error_of(lambda: validate(config), ConfigError) == "optimizer: lr must be positive"
    config.optimizer = Optimizer(lr=-1.0)
    assert error_of(lambda: build(config), ConfigError) == "optimizer: lr must be positive"
    config.optimizer.lr = 1.0
    validate(config)


def test_config_class_checks_its_fields_and_calls_its_validate():
    assert (
        error_of(lambda: validate(Experiment()), MissingParameterError)
        == "name: Experiment requires this parameter, and it is not set"
    )
    assert error_of(lambda: validate(LongExperiment(name="a", lr=-1.0)), ConfigError) == "lr must be positive"
    message = error_of(lambda: LongExperiment(name="a", epoch=1), UnknownParameterError)
    assert message == "LongExperiment has no parameter 'epoch'; did you mean 'epochs'? valid: name, lr, epochs"
    config = Config(use_experiment, experiment=LongExperiment(name="a"), scale=2.0)
    assert config.experiment.lr == 1e-3
    config.experiment.lr = 2
    assert build(config) == ("a", 4.0)
    assert repr(config.experiment) == "LongExperiment(name='a', lr=2)"


@pytest.mark.parametrize(
    "config",
    [
        Config(train, model=Config(Model, hidden=1), callback=double),
        Partial(train, callback=Partial(double), names={"a": [1]}),
        LongExperiment(name="a", lr=2.0),
        Script(inline="true"),
    ],
)
def test_config_is_copied_pickled_and_compared_as_fiddles(config):
    for clone in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config)), fdl.copy_with(config)):
        assert type(clone) is type(config)
        assert clone == config
    assert isinstance(config, fdl.Buildable)


def test_copies_are_checked_too():
    clone = fdl.copy_with(Config(Model, hidden=1), hidden=2)
    assert clone.hidden == 2
    assert "expected int" in error_of(lambda: fdl.copy_with(clone, hidden="x"))


def test_shared_configs_are_built_once():
    model = Config(Model, hidden=1)
    built = build({"a": model, "b": [model]})
    assert built["a"] is built["b"][0]


def test_repr_has_no_addresses_and_writes_shared_parts_once():
    model = Config(Model, hidden=1)
    config = Config(train, model=model, callback=double, names={"a": [1]})
    assert repr(model) == "Config(config_targets.Model, hidden=1)"
    assert repr([model, model]).count("hidden") == 2
    text = repr(Config(train, model=model, callback=Partial(double), data=Config(Data, seed=None)))
    assert "\n" in text
    assert " 0x" not in repr(config) + repr(Config(train, model=Output()))
    assert (
        repr(Config(positional, 1, "x", 2.0, flag=True)) == "Config(config_targets.positional, 1, 'x', 2.0, flag=True)"
    )
    assert repr(Config(Data)) == "Config(config_targets.Data)"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Script(),
        lambda: Script(path="a", inline="b"),
        lambda: Script(inline="b", m=True),
    ],
)
def test_script_needs_exactly_one_of_path_and_inline(make):
    assert "path" in error_of(make, ConfigError)


def test_a_field_of_a_model_is_taken_by_its_alias_and_by_its_name_where_the_model_does():
    config = Config(Aliased, lr=0.3)
    assert config == Config(Aliased, learning_rate=0.3)
    assert (config.lr, build(config).lr) == (0.3, 0.3)
    config.lr = 0.4
    assert config.learning_rate == 0.4
    changed = apply_overrides(Config(identity, config), ["value.lr=0.5", "value.learning_rate*=2"])
    assert build(changed).lr == 1.0
    made = apply_overrides(Config(identity), ["value=model_targets:Aliased(lr=0.6)"], allow=["model_targets."]).value
    assert made == Config(Aliased, lr=0.6)
    assert plans.from_plan({"version": 1, "root": plan_of_aliased("lr")}, ["model_targets."]) == Config(Aliased, lr=2.0)
    del config.lr
    assert config == Config(Aliased)
    assert "given 'learning_rate' twice" in error_of(
        lambda: Config(Aliased, lr=1.0, learning_rate=2.0), UnknownParameterError
    )
    assert "has no parameter 'lr'" in error_of(lambda: Config(OnlyAliased, lr=0.3), UnknownParameterError)


def plan_of_aliased(name):
    return {"_target_": "model_targets:Aliased", name: 2.0}


class Versioned(Config):
    VERSION: typing.ClassVar[int] = 1
    rate: float = 0.5


def test_a_class_variable_of_a_config_class_is_no_parameter():
    assert (Versioned.VERSION, Versioned().VERSION) == (1, 1)
    message = error_of(lambda: Versioned(VERSION=2), UnknownParameterError)
    assert "has no parameter 'VERSION'" in message


def test_the_value_that_a_tag_holds_is_checked_when_it_is_set():
    message = error_of(lambda: Config(Layer, width=Slow.new("wide")), ParameterTypeError)
    assert message.startswith("Layer.width: expected int, got 'wide'")
    assert Config(Layer, width=Slow.new(3)).width == 3
    assert "width" not in Config(Layer, width=Slow.new()).__arguments__
