"""An override means the same here, on Fiddle's configs, and in the job, which has nothing but the standard library."""

import copy
from pathlib import Path

import corpus
import pytest

from nemo_airflow import Config
from nemo_airflow.config import apply_overrides
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.language import configs
from nemo_airflow.language.errors import PlanError
from nemo_airflow.language.overrides.apply import apply
from nemo_airflow.language.recipes import foreign

ALLOW = ["corpus."]
KNOWN = Path(__file__).with_name("known_different.txt").read_text().splitlines()
"""Cases that do not mean the same yet, as ``name, override``. One that does must leave the list."""


def here(target, arguments, override):
    return apply_overrides(Config(target, **arguments), [override], allow=ALLOW)


def in_the_job(target, arguments, override):
    return apply(configs.Config(target, **arguments), override, ALLOW, foreign.config_of_call)


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
    except (ConfigError, PlanError):
        return "refused"
    except Exception as error:  # noqa: BLE001 - a case of the list, until it is mended
        return f"{apply_it.__name__} raised {error!r}"


def differing(name, overrides, present):
    """Returns those of some overrides that do not mean the same on both sides, with what they mean."""
    found = {}
    for override in overrides:
        left, right = (outcome(side, name, override, present) for side in (here, in_the_job))
        if left != right:
            found[f"{name}, {override}"] = f"here {left}\n  in the job {right}"
    return found


def check(name, overrides, present=False):
    found = differing(name, overrides, present)
    cases = [f"{name}, {override}" for override in overrides]
    unknown = [f"{case}: {what}" for case, what in found.items() if case not in KNOWN]
    mended = [case for case in cases if case in KNOWN and case not in found]
    assert not unknown, "\n".join(unknown)
    assert not mended, f"these mean the same now, so they leave {KNOWN}: {mended}"


@pytest.mark.parametrize("name", corpus.ANNOTATIONS)
def test_a_value_is_read_alike(name):
    check(name, [f"x={text}" for text in corpus.TEXTS])


@pytest.mark.parametrize("name", corpus.PRESENT)
def test_a_change_is_made_alike(name):
    check(name, corpus.CHANGES, present=True)
