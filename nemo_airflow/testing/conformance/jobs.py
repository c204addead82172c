"""What the conformance suite runs. Shipped to the job as a package: standard library, Python >= 3.9."""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Dict, List, Optional
from urllib.parse import quote


def add(a: int, b: int) -> int:
    """Returns the sum."""
    return a + b


def echo(value: object) -> object:
    """Returns its argument, which has to come through every layer of quoting unchanged."""
    return value


def environment(*names: str) -> Dict[str, Optional[str]]:
    """Returns the values of environment variables."""
    return {name: os.environ.get(name) for name in names}


def tell_secrets() -> Dict[str, object]:
    """Writes and returns its secrets in every way that leaves a job, and what they were."""
    token, key = os.environ["TOKEN"], os.environ["KEY"]
    print("the token is", token)
    for piece in token:
        sys.stdout.write(piece)
        sys.stdout.flush()
        time.sleep(0.005)
    print(" slowly")
    print(repr({"token": token}), json.dumps([token, key]), quote(token))
    for line in key.splitlines():
        print("key:", line)
    digests = {name: hashlib.sha256(os.environ[name].encode()).hexdigest() for name in ("TOKEN", "KEY")}
    return {"digests": digests, "TOKEN": token}


def read_texts() -> Dict[str, str]:
    """Returns what the text files of the working directory hold, by their path."""
    found = {}
    for folder, _, names in os.walk("."):
        for name in names:
            if name.endswith(".txt"):
                path = os.path.join(folder, name)
                with open(path, encoding="utf-8") as file:
                    found[os.path.relpath(path)] = file.read()
    return found


def fail(message: str) -> None:
    """Raises an error from an inner function."""

    def inner() -> None:
        raise ValueError(message)

    inner()


def exit_with(code: int) -> None:
    """Ends the process with an exit code."""
    sys.exit(code)


def print_lines(count: int) -> None:
    """Prints numbered lines."""
    for number in range(count):
        print(f"line {number}")


def print_slowly(count: int, pause: float) -> None:
    """Prints numbered lines, with seconds between them."""
    for number in range(count):
        print(f"line {number}", flush=True)
        time.sleep(pause)


def print_pieces() -> None:
    """Writes a line in pieces that split a UTF-8 sequence, and a last line without its end."""
    out = sys.stdout.buffer
    for byte in "größer → ok\n".encode():
        out.write(bytes([byte]))
        out.flush()
        time.sleep(0.005)
    out.write(b"no newline")
    out.flush()


def print_both() -> None:
    """Writes to both standard streams, and through a child process."""
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr, flush=True)
    os.system("echo from a child")


def write_outputs(names: List[str], size: int) -> None:
    """Writes files into the output directory."""
    folder = Path(os.environ["NEMO_AIRFLOW_OUTPUT_DIR"])
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    Path("in the working directory.txt").write_text("kept by its pattern")


def write_large_output(size: int, others: int) -> None:
    """Writes a large file and many small ones into the output directory."""
    folder = Path(os.environ["NEMO_AIRFLOW_OUTPUT_DIR"])
    with open(folder / "large.bin", "wb") as file:
        block = os.urandom(1 << 20)
        for start in range(0, size, len(block)):
            file.write(block[: size - start])
    (folder / "small").mkdir()
    for number in range(others):
        (folder / "small" / str(number)).write_text(str(number))


def allocate(limit: int, size: int) -> None:
    """Asks for more memory than the process may have."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    bytearray(size)


def write_outputs_and_links() -> None:
    """Writes outputs, links among them, and what cannot be kept: links to nothing and outside, a pipe."""
    folder = Path(os.environ["NEMO_AIRFLOW_OUTPUT_DIR"])
    (folder / "ckpt" / "1").mkdir(parents=True)
    (folder / "ckpt" / "1" / "weights").write_text("weights")
    (folder / "model.bin").write_text("model")
    os.symlink("model.bin", folder / "latest.bin")
    os.symlink("1", folder / "ckpt" / "last")
    os.symlink("no such file", folder / "nowhere")
    os.symlink("loop", folder / "loop")
    os.symlink("/etc/passwd", folder / "passwd")
    os.symlink("../job.json", folder / "up")
    os.mkfifo(folder / "pipe")


def mark_and_wait(marker: str, seconds: float) -> None:
    """Appends a line to a file, to count how often it ran, then waits."""
    with open(marker, "a") as file:
        file.write(f"{os.getpid()}\n")
    print("started", flush=True)
    time.sleep(seconds)


def ignore_sigterm(seconds: float) -> None:
    """Waits, and ignores being asked to end; so does a child process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        time.sleep(seconds)
        os._exit(0)
    print("started", flush=True)
    time.sleep(seconds)


def kill_self(number: int) -> None:
    """Ends by a signal."""
    os.kill(os.getpid(), number)
    time.sleep(60)


def return_artifacts(files: int, size: int) -> Dict[str, object]:
    """Returns a large file among the outputs, and a folder of small files and links from elsewhere."""
    from nemo_airflow.runner import artifact

    write_large_output(size, 0)
    data = Path("data")
    for number in range(files):
        path = data / f"part-{number % 7}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * (number % 50))
    (data / "run.sh").write_text("#!/bin/sh\n")
    (data / "run.sh").chmod(0o755)
    (data / "latest").symlink_to("part-0/0.txt")
    (data / "first").symlink_to("part-0")
    return {"large": artifact(os.path.join(os.environ["NEMO_AIRFLOW_OUTPUT_DIR"], "large.bin")), "data": artifact(data)}


def digest_artifacts(large: Path, others: Dict[str, List[Path]]) -> List[object]:
    """Returns the digests of what is at the paths of the artifacts that it was given, and where links lead."""
    from nemo_airflow.runner.digests import digest_of

    [data] = others["data"]
    links = [os.readlink(data / name) for name in ("latest", "first")]
    return [digest_of(str(large)), digest_of(str(data)), *links, os.access(data / "run.sh", os.X_OK)]
