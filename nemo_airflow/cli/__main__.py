"""``python -m nemo_airflow.cli``."""

import sys

from nemo_airflow.cli import main

sys.exit(main())
