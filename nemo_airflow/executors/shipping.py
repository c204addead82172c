"""Ships the runner: the few files of this package that a job needs, named by their content."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

ENTRY = "nemo_airflow/runner/__main__.py"
"""Path of the program to run, in the folder that :func:`install_runner` returns."""


@functools.cache
def runner_files() -> dict[str, bytes]:
    """Returns the files of the runner, by their path: the package's first module, the language's and the runner's."""
    package = Path(__file__).parent.parent
    rooms = [path for room in ("language", "runner") for path in sorted((package / room).rglob("*.py"))]
    paths = [package / "__init__.py", *rooms]
    return {f"nemo_airflow/{path.relative_to(package)}": path.read_bytes() for path in paths}


@functools.cache
def runner_digest() -> str:
    """Returns a digest of the runner's files: another version of it is another folder."""
    digest = hashlib.sha256()
    for name, data in sorted(runner_files().items()):
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def install_runner(folder: Path) -> Path:
    """Lays the runner's files into a folder of their own, once, and returns it.

    A copy, because a job outlives an upgrade of this package, and its files must not change below it.
    Safe for several processes at once: the folder appears whole.
    """
    target = folder / runner_digest()
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
    for name, data in runner_files().items():
        path = temporary / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    temporary.chmod(0o755)
    try:
        os.rename(temporary, target)
    except OSError:
        shutil.rmtree(temporary)
        if not target.is_dir():
            raise
    return target
