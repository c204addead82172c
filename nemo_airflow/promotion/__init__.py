"""Which version of a registered model is in service: promotion and rollback by an alias, with a record of each."""

from nemo_airflow.promotion.changes import CHALLENGER, CHAMPION, Change
from nemo_airflow.promotion.model import PromotedModel, Version

__all__ = ["CHALLENGER", "CHAMPION", "Change", "PromotedModel", "Version"]
