"""Runs the smallest DAG from end to end by ``dag.test()``: a job on this machine, whose result is the task's XCom."""

import datetime
import sys
from pathlib import Path

from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.session import create_session

from nemo_airflow import Config, NemoRunOperator, PatternPackager, params_from

CODE = """
import dataclasses

@dataclasses.dataclass
class Model:
    hidden: int = 8

def train(model: Model, learning_rate: float = 0.1, until: str = "") -> dict:
    print("training until", until)
    return {"hidden": model.hidden, "learning_rate": learning_rate, "until": until}
"""


def main(folder: Path) -> None:
    (folder / "trainer.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    import trainer

    config = Config(trainer.train, model=Config(trainer.Model), until="{{ ds }}")
    with DAG("versions", start_date=datetime.datetime(2026, 1, 1), params=params_from(config, "train")) as dag:
        NemoRunOperator(
            task_id="train", config=config, params_prefix="train", packager=PatternPackager(path=str(folder))
        )
    DagBundlesManager().sync_bundles_to_db()
    data = LazyDeserializedDAG.from_dag(dag)
    with create_session() as session:
        SerializedDAG.bulk_write_to_db("dags-folder", None, [data], session=session)
        SerializedDagModel.write_dag(data, bundle_name="dags-folder", session=session)
    run = dag.test(
        logical_date=datetime.datetime(2026, 2, 3, tzinfo=datetime.UTC), run_conf={"train.learning_rate": 0.5}
    )
    [task] = run.get_task_instances()
    with create_session() as session:
        rows = session.scalars(XComModel.get_many(run_id=run.run_id, dag_ids="versions", key="return_value")).all()
        results = [XComModel.deserialize_value(row) for row in rows]
    assert task.state == "success", task.state
    assert results == [{"hidden": 8, "learning_rate": 0.5, "until": "2026-02-03"}], results


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
