"""A class whose configs have tags from its annotations, and one that holds many of it."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import fiddle as fdl


class Rate(fdl.Tag):
    """How fast it learns."""


class Slow(fdl.Tag):
    """What is to change slowly."""


@dataclasses.dataclass
class Layer:
    width: int = 0
    rate: Annotated[float, Rate] = 0.1
    name: str | None = None
    share: float = 0.5


@dataclasses.dataclass
class Stack:
    layers: list[Layer]
    last: Layer | None = None
