"""The example DAGs import their code from beside them, as Airflow lets them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "dags"))
