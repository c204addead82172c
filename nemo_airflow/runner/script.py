"""Runs a script as the job: a file of the package, a module, or text given with the config."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence

_STRICT = {"bash": ["-e", "-o", "pipefail"], "sh": ["-e"]}
"""Options for the text of a script, by shell."""


def run(
    path: str | None = None,
    inline: str | None = None,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    entrypoint: str = "bash",
    m: bool = False,
) -> None:
    """Runs a script in the job's working directory, and ends in the same way.

    The script writes to the job's output, and is in the job's process group: what cancels the
    job reaches it too.

    Args:
        path: The script, relative to the working directory; with ``m`` the name of a module.
        inline: The script's text, instead of ``path``. Where ``entrypoint`` is a bare ``bash`` or ``sh``, the first
            command that fails ends the script (``-e``, and of ``bash`` ``-o pipefail``); ``bash +e`` goes on.
        args: The script's arguments, passed without a shell.
        env: Environment variables, besides the job's.
        entrypoint: The program that runs the script, with its options: ``bash``, ``python -u``.
        m: Whether to run ``entrypoint -m path``.

    Raises:
        SystemExit: The script failed; the code is its own, or 128 + n when signal n ended it.
        FileNotFoundError: The script or the program does not exist.
        ValueError: Not exactly one of ``path`` and ``inline``, or ``m`` without ``path``.
    """
    if (path is None) == (inline is None):
        raise ValueError("a script takes either path or inline: give exactly one of them")
    if m and path is None:
        raise ValueError("m=True runs a module: give its name as path, and no inline")
    if path is not None and not m and not os.path.isfile(path):
        raise FileNotFoundError(f"no script {path!r} in the working directory {os.getcwd()}: add it to the package")
    program = shlex.split(entrypoint)
    if inline is not None and len(program) == 1:
        program += _STRICT.get(os.path.basename(program[0]), [])
    with _script_file(inline) as written:
        command = [*program, *(["-m"] if m else []), written or str(path), *args]
        # Lines appear as they are printed, also the last ones before a kill: Python buffers 8 KiB otherwise.
        code = _wait_for(command, {"PYTHONUNBUFFERED": "1", **os.environ, **(env or {})})
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def _wait_for(command: list[str], env: Mapping[str, str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        process = subprocess.Popen(command, env=env)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no program {command[0]!r} in the job's environment to run the script: install it, or change entrypoint"
        ) from error
    try:
        return process.wait()
    except BaseException:
        # The signal went to the whole group: let the script clean up.
        process.wait()
        raise


@contextlib.contextmanager
def _script_file(text: str | None) -> Iterator[str]:
    if text is None:
        yield ""
        return
    # In the working directory where possible: Python puts the script's folder on its path.
    folder = os.getcwd() if os.access(os.getcwd(), os.W_OK) else None
    handle, name = tempfile.mkstemp(prefix=".script-", dir=folder)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        yield name
    finally:
        os.unlink(name)
