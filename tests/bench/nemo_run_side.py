"""The benchmark's peer: one trivial task on NeMo-Run's local executor. Runs in NeMo-Run's own environment."""

import json
import sys
import time

started = time.time()

import nemo_run as run  # noqa: E402
from bench_jobs import trivial  # noqa: E402

imported = time.time()

if __name__ == "__main__":
    run.run(run.Partial(trivial), executor=run.LocalExecutor(), name="trivial", detach=False, tail_logs=False)
    with open(sys.argv[1], "w") as file:
        json.dump({"process": started, "imported": imported, "ended": time.time()}, file)
