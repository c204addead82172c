"""Each setting is an option of Airflow, and is read the same with Airflow and without it."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nemo_airflow
from nemo_airflow import settings
from nemo_airflow.cli import main
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.options import OPTIONS, read_option

IN_THE_JOB = {
    "ARRAY_TASK", "CHECKPOINTS", "EVENTS", "INPUTS", "INPUTS_GRANT", "KEEP_STREAM", "KEY",
    "LINGER", "OUTPUTS_GRANT", "OUTPUT_DIR", "OWNER", "RUN", "RUN_ID", "SETUP_FAILED", "ZSTD_MARK",
}  # fmt: skip
"""What executors and the runner tell each other, or the job's code: docs/drivers.md and docs/runner.md."""

MARKS = {"SERVER"}
"""By which the demo's Airflow finds its own processes."""


@pytest.fixture
def airflow_home(tmp_path, monkeypatch):
    for option in OPTIONS.values():
        monkeypatch.delenv(option.variable, raising=False)
        monkeypatch.delenv(option.airflow_variable, raising=False)
    monkeypatch.delenv("AIRFLOW_CONFIG", raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    return tmp_path


def test_every_variable_in_the_code_is_an_option_or_of_the_job():
    root = Path(nemo_airflow.__file__).parent
    used = {
        match.group(1)
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if (match := re.fullmatch("NEMO_AIRFLOW_([A-Z_]*[A-Z])", node.value))
    }
    assert used - {name.upper() for name in OPTIONS} == IN_THE_JOB | MARKS


@pytest.mark.parametrize("name", OPTIONS)
def test_ours_goes_before_airflows_variable_and_that_before_its_file(airflow_home, monkeypatch, name):
    option = OPTIONS[name]
    assert read_option(name).text == option.default
    (airflow_home / "airflow.cfg").write_text(f"[nemo_airflow]\n{name} = of the file\n")
    assert read_option(name).text == "of the file"
    monkeypatch.setenv(option.airflow_variable, "of Airflow")
    assert read_option(name).text == "of Airflow"
    monkeypatch.setenv(option.variable, "ours")
    assert read_option(name).text == "ours"
    monkeypatch.setenv(option.variable, "")
    assert read_option(name).text == "of Airflow"


def test_an_option_is_read_as_airflow_reads_it(airflow_home, monkeypatch):
    from airflow.sdk.configuration import AirflowSDKConfigParser

    monkeypatch.setenv("TEAM", "research")
    monkeypatch.setenv("AIRFLOW__NEMO_AIRFLOW__HOME", "$HOME/nemo")
    (airflow_home / "airflow.cfg").write_text(
        "[core]\nexecutor = LocalExecutor\n[nemo_airflow]\nstore = ~/100%%/${TEAM}\nallow = zoo.,\n    shop.\n"
    )
    conf = AirflowSDKConfigParser()
    for name in OPTIONS:
        assert read_option(name).text == (conf.get("nemo_airflow", name, fallback=None) or ""), name
    assert settings.store_url().endswith("/100%/research")


def test_a_change_of_the_file_counts_at_once(airflow_home):
    for text in ("1", "20"):
        (airflow_home / "airflow.cfg").write_text(f"[nemo_airflow]\nlost_after = {text}\n")
        assert settings.lost_after() == float(text)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (settings.defer_after, "defer_after"),
        (settings.lost_after, "lost_after"),
        (settings.give_up_after, "give_up_after"),
        (settings.spool_limit, "spool_limit"),
        (settings.refuses_patch_with_secret, "patch_with_secret"),
        (settings.preloads, "preload"),
    ],
)
def test_a_wrong_value_is_said_with_where_it_is_set(airflow_home, monkeypatch, read, name):
    (airflow_home / "airflow.cfg").write_text(f"[nemo_airflow]\n{name} = soon\n")
    with pytest.raises(SettingsError, match=re.escape(f"{airflow_home}/airflow.cfg: [nemo_airflow] {name}='soon' is")):
        read()
    monkeypatch.setenv(OPTIONS[name].airflow_variable, "later")
    with pytest.raises(SettingsError, match=f"^{OPTIONS[name].airflow_variable}='later' is "):
        read()


def test_a_file_that_is_no_configuration_is_said(airflow_home):
    (airflow_home / "airflow.cfg").write_text("store = x\n")
    with pytest.raises(SettingsError, match=r"airflow\.cfg cannot be read as .*: .*set what is needed as \$NEMO_A"):
        settings.store_url()


def test_no_setting_needs_airflow(airflow_home):
    script = "import sys; from nemo_airflow.cli import main; main(['settings']); print('airflow' in sys.modules)"
    (airflow_home / "airflow.cfg").write_text("[nemo_airflow]\nstore = s3://aws@bucket\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert re.search(r"^store +s3://aws@bucket  \(/.*airflow.cfg: \[nemo_airflow\] store\)$", done.stdout, re.M)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_command_says_where_each_value_comes_from_and_no_password(airflow_home, monkeypatch, capsys):
    monkeypatch.setenv("NEMO_AIRFLOW_MLFLOW_PAGE", "http://ann:sesame@mlflow.example")
    monkeypatch.setenv("AIRFLOW__NEMO_AIRFLOW__DEFER_AFTER", "0")
    assert main(["settings", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mlflow_page"] == {"value": "http://mlflow.example", "source": "NEMO_AIRFLOW_MLFLOW_PAGE"}
    assert found["defer_after"] == {"value": "0", "source": "AIRFLOW__NEMO_AIRFLOW__DEFER_AFTER"}
    assert found["lost_after"] == {"value": "60", "source": "default"}


def test_the_table_of_the_documentation_is_what_the_command_prints(capsys):
    assert main(["settings", "-o", "markdown"]) == 0
    page = Path(__file__).parents[2] / "docs" / "provider.md"
    assert capsys.readouterr().out in page.read_text()
