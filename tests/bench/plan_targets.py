"""What the configs of ``plans.py`` are of."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Layer:
    """One layer."""

    width: int
    rate: float = 0.1
    name: str = ""


@dataclasses.dataclass
class Block:
    """Some layers, one after the other."""

    layers: list[Layer]
    skip: bool = False


@dataclasses.dataclass
class Net:
    """Blocks, one after the other."""

    blocks: list[Block]
