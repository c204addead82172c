"""Knows which nodes a cluster has now, and whose agent hands out files; asked at most once in ten seconds."""

from __future__ import annotations

import time

from nemo_airflow.executors.ray.api import NoAgent, RayApi

_FRESH = 10.0
_SOME_FILE = "raylet.out"


class Nodes:
    """The nodes of one cluster."""

    def __init__(self, api: RayApi) -> None:
        self._api = api
        self._alive: frozenset[str] = frozenset()
        self._asked = float("-inf")
        self._answered: dict[str, float] = {}

    async def has(self, node: str) -> bool:
        """Returns whether a node is part of the cluster."""
        if time.monotonic() - self._asked > _FRESH:
            nodes = await self._api.nodes()
            self._alive = frozenset(found["node_id"] for found in nodes if found["state"] == "ALIVE")
            self._asked = time.monotonic()
        return node in self._alive

    async def answers(self, node: str) -> bool:
        """Returns whether the files of a node can be read."""
        now = time.monotonic()
        if now - self._answered.get(node, float("-inf")) > _FRESH:
            try:
                async with self._api.file(node, _SOME_FILE, lines=1):
                    self._answered[node] = now
            except NoAgent:
                return False
        return True
