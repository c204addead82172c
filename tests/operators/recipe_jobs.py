"""What a recipe's factory makes, which only the job imports."""

from __future__ import annotations

import dataclasses

from nemo_airflow import Config, Partial


@dataclasses.dataclass
class Model:
    hidden: int
    name: str = "plain"
    tags: list[str] = dataclasses.field(default_factory=list)


def describe(model: Model) -> dict[str, object]:
    return dataclasses.asdict(model)


def keep(model: Model) -> int:
    from nemo_airflow import output_dir

    (output_dir() / "model.txt").write_text(model.name)
    return model.hidden


def kept(hidden: int = 8) -> Partial:
    return Partial(keep, model=Config(Model, hidden=hidden))


def small(hidden: int = 8) -> Partial:
    return Partial(describe, model=Config(Model, hidden=hidden))
