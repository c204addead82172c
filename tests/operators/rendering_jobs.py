"""What the tests of rendering run as jobs: they return what reached them."""

import os


def texts(prompt: str, version: str = "", anything=None, many: list[str] | None = None) -> list:
    return [prompt, version, anything, many]


def numbers(count: int, rate: float = 0.0) -> list:
    return [count, rate]


def environment(names: list[str]) -> list[str]:
    return [os.environ[name] for name in names]
