"""The digits of the example, trained with one seed, come out the same on each back-end of the lab."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from lab.backends import HOME
from test_launch import newest
from test_reproduce import commit

from nemo_airflow.cli import main

DIGITS = Path(__file__).parents[2] / "dags" / "digits"

CONFIG = """
from digits.data import Data
from digits.features import Features
from digits.model import Model, Optimizer
from digits.train import train

from nemo_airflow import Config

small = Config(
    train,
    data=Config(Data, until="2026-06-01"),
    features=Config(Features),
    model=Config(Model, hidden=[16]),
    optimizer=Config(Optimizer, epochs=3),
    seed=11,
)
"""


@pytest.fixture
def digits(project):
    shutil.copytree(DIGITS, "digits", ignore=shutil.ignore_patterns("__pycache__"))
    Path("digit_runs.py").write_text(CONFIG)
    commit("digits")
    yield "digit_runs:small"
    for name, module in list(sys.modules.items()):  # another test has the example's own code
        if str(getattr(module, "__file__", None)).startswith(str(Path.cwd())):
            del sys.modules[name]


def test_a_run_is_reproduced_from_this_machine_to_a_container_to_slurm_to_a_pod_and_back(
    digits, lab_docker, lab_image, ssh_conn_id, lab_slurm, lab_kubeconfig, lab_torch, tmp_path, capsys
):
    volume = {"name": "torch", "hostPath": {"path": f"{HOME}/torch"}}
    mount = {"name": "torch", "mountPath": f"{HOME}/torch", "readOnly": True}
    local = {"kind": "local"}
    docker = {"kind": "docker", "docker_url": lab_docker, "volumes": [f"{HOME}/torch:{HOME}/torch:ro"]}
    slurm = {"kind": "slurm", "ssh_conn_id": ssh_conn_id, "root": "~/reproduced"}
    pod = {"kind": "kubernetes", "config_file": lab_kubeconfig, "volumes": [volume], "volume_mounts": [mount]}
    for where in (docker, pod):
        where["container_image"] = lab_image
    files = []
    for where in (local, docker, slurm, pod, local):
        files.append(str(tmp_path / f"{len(files)}.yaml"))
        Path(files[-1]).write_text(yaml.safe_dump({**where, "python": lab_torch}))
    assert main(["run", digits, "--executor", files[0]]) == 0
    run_id, kind = newest().tracked.ref.run_id, "local"
    for file in files[1:]:
        capsys.readouterr()
        code = main(["reproduce", run_id, "--on", file, "--tolerance", "1e-9", "-o", "json"])
        out, err = capsys.readouterr()
        assert code == 3, out + err
        report = json.loads(out)
        parts = report["parts"]
        to = newest().executor["kind"]
        assert parts["back-end"]["detail"] == f"{kind} -> {to}"
        assert [parts[name]["verdict"] for name in ("plan", "package", "seed", "end", "metrics")] == ["same"] * 5, out
        assert parts["metrics"]["detail"].startswith("2 metrics, ")
        assert lab_image in parts["image"]["detail"]
        run_id, kind = report["other_id"], to
