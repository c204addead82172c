"""What the jobs of these tests run."""

import hashlib
import json
import sys
import time
from pathlib import Path
from urllib.parse import quote

from nemo_airflow.runner.artifacts import artifact
from nemo_airflow.runner.report import log_metric, output_dir, set_tag

MARKDOWN = """# Report

The loss is **{rate}**, see [the page](page.html) or [nothing](javascript:alert(1)).

| name | value |
|---|---|
| rate | {rate} |

<script>document.title = "broken"</script>
"""


def train(rate: float = 0.1):
    """Logs a metric, and writes a file of each kind that a page can show."""
    log_metric("loss", rate)
    out = output_dir()
    folder = out / "more" / "deep"
    folder.mkdir(parents=True)
    texts = {
        "report.md": MARKDOWN.format(rate=rate),
        "page.html": "<h1>A page</h1><script>parent.document.title = 'broken'</script>",
        "picture.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><circle r="40"/></svg>',
        "table.csv": "step,loss\n" + "".join(f"{step},{rate / (step + 1)}\n" for step in range(300)),
        "values.json": json.dumps({"rate": rate, "loss": float("nan")}),
        "more/train.log": "".join(f"step {step}: fine\n" for step in range(40_000)),
        "more/<b> & 'x'.txt": "a name with <script>",
    }
    for name, text in texts.items():
        (out / name).write_text(text)
    (folder / "weights.bin").write_bytes(bytes(1000))
    return {"weights": artifact(folder / "weights.bin")}


def take(values):
    return len(values)


def wait():
    time.sleep(900)


def tell_everything(token, header, parts, wait_for):
    """Writes a secret in every way that leaves a job, but into its own files."""
    import os

    while not Path(wait_for).exists():
        time.sleep(0.05)
    assert header == f"Bearer {token}"
    assert os.environ["HF_TOKEN"] == os.environ["FROM_EXECUTOR"] == parts["all"][0] == token
    print("the token is", token)
    print(repr({"token": token}), json.dumps([token]), quote(token))
    for piece in token:
        sys.stdout.write(piece)
        sys.stdout.flush()
        time.sleep(0.01)
    print(" <- slowly")
    print(token[:4], "is only its beginning")
    set_tag("spoken", f"token={token}")
    log_metric(f"of {token[:3]}", 1)
    (output_dir() / "digest.txt").write_text(hashlib.sha256(token.encode()).hexdigest())
    return {"token": token, "digest": hashlib.sha256(token.encode()).hexdigest()}


def fail_with(token):
    raise RuntimeError(f"401 Unauthorized for {token}")


def tell_named(wait_for):
    """Writes its secrets in every way that leaves a job, but into its own files."""
    import os

    while not Path(wait_for).exists():
        time.sleep(0.05)
    token, key = os.environ["TOKEN"], os.environ["KEY"]
    print("the token is", token, repr([token]), json.dumps({"token": token}), quote(token))
    for line in key.splitlines():
        print("a line:", line)
    set_tag("spoken", f"token={token}")
    log_metric(f"of {token}", 1)
    (output_dir() / "digest.txt").write_text(hashlib.sha256(token.encode()).hexdigest())
    return {"token": token, "digests": [hashlib.sha256(text.encode()).hexdigest() for text in (token, key)]}
