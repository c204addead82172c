"""A name that an experiment cannot have is refused in one line, and no job is submitted."""

import datetime

import operator_jobs as jobs
import pytest
from airflow.sdk import DAG

from nemo_airflow import Config, MLflowTracker, NemoRunOperator
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.tracking.mlflow.address import check_experiment


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("..", r"experiment='\.\.' would put its artifacts outside their folder: give another name"),
        (".", r"experiment='\.' would put its artifacts outside their folder"),
        ("ü" * 50, r"experiment='ü+' has 300 bytes as the name of a folder .* a disk allows 255: shorten it"),
        ("x" * 501, r"experiment='x+\.\.\.' has 501 characters, and MLflow allows 500: shorten it"),
    ],
    ids=["above", "here", "bytes", "characters"],
)
@pytest.mark.parametrize("of", ["operator", "tracker"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_submitted(
    tmp_path, root, defaults, task_context, name, message, of
):
    uri = f"sqlite:///{tmp_path / 'tracking' / 'mlflow.db'}"
    tracker = MLflowTracker(tracking_uri=uri, experiment=name if of == "tracker" else None)
    experiment = name if of == "operator" else None
    with DAG("names", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        task = NemoRunOperator(
            task_id="t",
            config=Config(jobs.keep, learning_rate=0.1),
            **{**defaults, "tracker": tracker},
            experiment=experiment,
        )
    with pytest.raises(SettingsError, match=message) as caught:
        task.execute(task_context(dag))
    assert "\n" not in str(caught.value)
    assert not root.exists()
    assert not list(tmp_path.glob("tracking/*")), "nothing was made for it"


def test_a_server_takes_names_that_a_folder_cannot_have():
    for name in ("..", "ü" * 500):
        check_experiment("http://mlflow.example.invalid", name)
