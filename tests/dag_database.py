"""Writes DAGs that are in no DAG file to Airflow's database, for ``dag.test()``."""

from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.session import create_session


def register(dag: DAG) -> None:
    """Writes a DAG, as the DAG processor does with those in files."""
    DagBundlesManager().sync_bundles_to_db()
    data = LazyDeserializedDAG.from_dag(dag)
    with create_session() as session:
        SerializedDAG.bulk_write_to_db("dags-folder", None, [data], session=session)
        SerializedDagModel.write_dag(data, bundle_name="dags-folder", session=session)
