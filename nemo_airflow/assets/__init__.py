"""Assets of Airflow that are not files: models and runs in MLflow."""

from nemo_airflow.assets.mlflow import model_asset

__all__ = ["model_asset"]
