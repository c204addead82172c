"""Models and runs of MLflow as assets: one form for each, known to Airflow by the scheme."""

import pytest
from airflow.sdk import Asset

from nemo_airflow.assets import model_asset


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("mlflow://models/digits", "mlflow://models/digits"),
        ("mlflow://MODELS/digits/", "mlflow://models/digits"),
        ("MLFLOW://models/digits@champion", "mlflow://models/digits@champion"),
        ("mlflow://models/my%20digits/3", "mlflow://models/my%20digits/3"),
        ("mlflow://runs/abc/model", "mlflow://runs/abc/model"),
    ],
)
def test_an_asset_has_one_address_however_it_is_written(written, normal):
    assert Asset(uri=written).uri == normal


@pytest.mark.parametrize(
    "wrong",
    ["mlflow://digits", "mlflow://models/", "mlflow://models/a/b", "mlflow://models/@x", "mlflow://models/a@b/3",
     "mlflow://models/a?b=c", "mlflow://runs/"],
)  # fmt: skip
def test_what_is_no_model_and_no_run_is_refused(wrong):
    with pytest.raises(ValueError, match="is not the address of a model or run in MLflow: give mlflow://models/NAME"):
        Asset(uri=wrong)


def test_a_model_is_an_asset_by_its_name():
    assert model_asset("my digits").uri == "mlflow://models/my%20digits"
    assert model_asset("digits", alias="champion").uri == "mlflow://models/digits@champion"
    assert model_asset("a/b", version=3).uri == "mlflow://models/a%2Fb/3"
    for arguments in ({"alias": "a", "version": 1}, {"alias": "a@b"}):
        with pytest.raises(ValueError, match="alias"):
            model_asset("digits", **arguments)
