"""Moves a folder of 1,000 files and a file of 500 MB from each back-end to each, and compares digests.

A job of the one returns them as artifacts, they are kept in the store, and a job of the other reads them. The table
says how many seconds the second job took as a whole, the file there for the first time; ends with 1 where a digest
differs. Needs the lab (``make lab``), and 5 GB of disk.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from back_ends import IMAGE, SCRATCH, prepare, ray_cluster

NAMES = ("local", "docker", "ssh", "slurm", "kubernetes", "ray")


def main() -> None:
    """Runs all pairs, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000, help="files of the folder")
    parser.add_argument("--size", type=int, default=500_000_000, help="bytes of the large file")
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES, help="back-ends")
    options = parser.parse_args()
    SCRATCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home:
        prepare(Path(home))
        cluster = ray_cluster() if "ray" in options.only else None
        try:
            pairs = Pairs(Path(home), cluster.address if cluster else "")
            seconds, wrong = pairs.run(options.only, options.files, options.size)
        finally:
            if cluster:
                cluster.remove()
    report(options.only, seconds, f"A folder of {options.files} files and a file of {options.size / 1e6:.0f} MB")
    if wrong:
        raise SystemExit("\n".join(wrong))


class Pairs:
    """Runs jobs that make artifacts and jobs that read them.

    Args:
        home: Folder for all that is made.
        ray_address: The dashboard of a Ray cluster.
    """

    def __init__(self, home: Path, ray_address: str) -> None:
        from nemo_airflow import settings
        from nemo_airflow.packaging.archive import write_archive
        from nemo_airflow.store import PackageStore
        from nemo_airflow.testing.conformance import jobs

        self._home = home
        self._root = f"~/pairs-{uuid.uuid4().hex[:8]}"
        self._ray = ray_address
        code = {"conformance_jobs.py": inspect.getsource(jobs).encode()}
        self._package = write_archive(code, PackageStore(settings.packages_folder()))

    def run(self, names: list[str], files: int, size: int) -> tuple[dict[tuple[str, str], float], list[str]]:
        """Returns seconds of each pair, and what arrived wrong."""
        seconds: dict[tuple[str, str], float] = {}
        wrong = []
        try:
            for number, source in enumerate(names):
                # As many files for each source: what is in the store or on a host from another is not sent again.
                made = self._job(source, "return_artifacts", files=files + number, size=size)
                digests = [made[name]["_artifact_"]["digest"] for name in ("large", "data")]
                for sink in names:
                    print(f"\r{source} to {sink:20}", end="", file=sys.stderr, flush=True)
                    begun = time.perf_counter()
                    found = self._job(sink, "digest_artifacts", large=made["large"], others={"data": [made["data"]]})
                    seconds[source, sink] = time.perf_counter() - begun
                    if found[:2] != digests:
                        wrong.append(f"{source} to {sink}: {found[:2]} arrived of {digests}")
        finally:
            print(file=sys.stderr)
            from lab.backends import Lab

            Lab().ssh.run(f"rm -rf {self._root}")
        return seconds, wrong

    def _executor(self, name: str) -> Any:
        import nemo_airflow

        made = {
            "local": lambda: nemo_airflow.LocalExecutor(root=str(self._home / "jobs")),
            "docker": lambda: nemo_airflow.DockerExecutor(container_image=IMAGE),
            "ssh": lambda: nemo_airflow.SSHExecutor(ssh_conn_id="bench", root=self._root),
            "slurm": lambda: nemo_airflow.SlurmExecutor(ssh_conn_id="bench", root=self._root),
            "kubernetes": lambda: nemo_airflow.KubernetesExecutor(
                container_image=IMAGE, image_pull_policy="Never", config_file=os.environ["KUBECONFIG"]
            ),
            "ray": lambda: nemo_airflow.RayExecutor(address=self._ray),
        }
        return made[name]()

    def _job(self, name: str, function: str, **arguments: Any) -> Any:
        """Runs a job, and returns its result with its artifacts kept; nothing of the job is left but what is kept."""
        from nemo_airflow import blocking
        from nemo_airflow.artifacts import archives_for, keep_artifacts
        from nemo_airflow.follow import Follower
        from nemo_airflow.job import Job

        key = f"pair-{uuid.uuid4().hex[:16]}"
        plan = {"version": 1, "root": {"_target_": f"conformance_jobs:{function}", **arguments}}
        job = Job(key, function, plan, ("conformance_jobs.",), self._package, inputs=archives_for(plan))
        executor = self._executor(name)

        async def run_and_collect() -> Any:
            driver = executor.connect()
            handle = await driver.submit(executor.render(job))
            outcome = await Follower(executor, handle, on_line=lambda *line: None, warn=print).run()
            if not outcome.succeeded:
                raise SystemExit(f"{name}: {outcome.message}")
            with tempfile.TemporaryDirectory(dir=self._home) as outputs:
                await driver.collect(handle, Path(outputs))
                result = keep_artifacts(outcome.result, key, Path(outputs))
            await driver.release([handle])
            await driver.close()
            return result

        return blocking.run(run_and_collect(), 600)


def report(names: list[str], seconds: dict[tuple[str, str], float], title: str) -> None:
    """Prints the seconds of all pairs."""
    from rich.console import Console
    from rich.table import Table

    table = Table("from / to", *names, title=f"{title}: seconds of the job that gets them")
    for source in names:
        table.add_row(source, *(f"{seconds[source, sink]:.1f}" for sink in names))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
