"""An override means the same here, on Fiddle's configs, and in the job, which has nothing but the standard library."""

import copy

import corpus
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_airflow import Config
from nemo_airflow.config import apply_overrides
from nemo_airflow.exceptions import ConfigError, ParameterTypeError
from nemo_airflow.language import configs
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
