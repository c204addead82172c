"""The image for jobs runs the example's training, as the docs build it."""

import re

import pytest
from compose_stack import PAGE, Stack

from nemo_airflow.cli import main

pytestmark = pytest.mark.timeout(1800)  # images are built


def test_the_image_for_jobs_has_what_the_example_imports(checkout, stand_ins, tmp_path, monkeypatch, capsys):
    [command] = re.findall(r"^(docker build .*)$", PAGE, re.MULTILINE)
    built = Stack(checkout, stand_ins, {}).sh(command)
    assert built.returncode == 0, built.stderr
    monkeypatch.chdir(checkout / "dags")
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path))
    values = [
        "data={_target_: digits.data.Data, until: '2026-01-05'}",
        "features={_target_: digits.features.Features}",
        "model={_target_: digits.model.Model, hidden: [16]}",
        "optimizer={_target_: digits.model.Optimizer, epochs: 2}",
    ]
    where = f"{{kind: docker, docker_url: '{stand_ins}', container_image: nemo-airflow-job, pull: never}}"
    packager = "{kind: git, subpath: dags}"
    options = ["--executor", where, "--packager", packager, "--no-track"]
    assert main(["run", "digits.train:train", *values, *options]) == 0
    assert "epoch 2 of 2: loss" in capsys.readouterr().out
