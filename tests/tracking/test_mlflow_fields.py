"""Names and values that MLflow takes."""

from __future__ import annotations

import itertools

import pytest

from nemo_airflow.tracking.mlflow.fields import batches, clean_name, clean_path, clean_tags, cut_text


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "/x",
        "x/",
        "a//b",
        "a/./b",
        "a+b",
        "größe",
        "a\nb",
        "x" * 400,
        "x" * 248 + "/.+",
        "a:b",
        "日本",
        "tab\t",
    ],
)
def test_a_cleaned_name_passes_mlflows_own_check(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

    clean = clean_name(name)
    _validate_param_name(clean)
    _validate_metric_name(clean)
    _validate_tag_name(clean)
    assert len(clean) <= 250


def test_a_good_name_stays_and_different_names_stay_different() -> None:
    assert clean_name("model.layers.0/w_b-1 x:y") == "model.layers.0/w_b-1 x:y"
    names = ["a+b", "a-b", "a*b", "a:2b:b", "a:3a:2b:b", "x" * 300, "x" * 301]
    assert len({clean_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("letters", ["a2b:+", "./2e:"])
def test_no_two_short_names_become_one(letters: str) -> None:
    names = ["".join(name) for length in range(1, 7) for name in itertools.product(letters, repeat=length)]
    assert len({clean_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("path", ["a#b", "100%", "%2e%2e/x", "c:/x", "a\\b", "plain/ü.txt", "bad\udcff"])
def test_a_cleaned_path_passes_mlflows_own_check(path: str) -> None:
    from mlflow.utils.uri import validate_path_is_safe

    clean = clean_path(path)
    assert validate_path_is_safe(clean) == clean
    clean.encode()


def test_long_values_are_cut_with_a_digest_of_the_whole() -> None:
    assert cut_text("x" * 10, 10) == "x" * 10
    one, other = cut_text("x" * 200, 100), cut_text("x" * 199 + "y", 100)
    assert len(one) == len(other) == 100
    assert one != other


def test_tags_without_a_value_are_left_out() -> None:
    assert clean_tags({"a": "", "b": "1"}) == {"b": "1"}


def test_batches_keep_order_and_lose_nothing() -> None:
    values = {str(n): n for n in range(250)}
    parts = list(batches(values, 100))
    assert [len(part) for part in parts] == [100, 100, 50]
    assert {name: value for part in parts for name, value in part.items()} == values
