"""Which version of a registered model is in service: promotion and rollback by an alias, with a record of each."""

from nemo_airflow.promotion.changes import Change
from nemo_airflow.promotion.model import CHALLENGER, CHAMPION, PromotedModel, Version

__all__ = ["CHALLENGER", "CHAMPION", "Change", "PromotedModel", "Version"]
