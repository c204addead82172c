"""Who runs a job that several starts claim at once."""

import json
import multiprocessing
import os

from nemo_airflow.runner import claims


def claim_after(both, folder, taken):
    wait = claims._wait_for_end

    def wait_for_end(*given):
        found = wait(*given)
        both.wait(5)  # both starts have seen the dead one before either takes its place
        return found

    claims._wait_for_end = wait_for_end
    taken.put(claims.take(folder, heartbeat=5.0))
    both.wait(300)  # alive, as a job is


def test_of_two_starts_that_see_a_dead_one_at_once_one_runs_the_job(tmp_path, monkeypatch):
    monkeypatch.setenv(claims.OWNER, "slurm:72")
    dead = {**claims._identity(), "pid": 2**22 + 1, "owner": "slurm:72"}
    (tmp_path / "claim").write_text(json.dumps(dead))
    fork = multiprocessing.get_context("fork")
    both, taken = fork.Barrier(2), fork.Queue()
    starts = [fork.Process(target=claim_after, args=(both, str(tmp_path), taken)) for _ in range(2)]
    for start in starts:
        start.start()
    try:
        assert taken.get(timeout=10) is True
        starts[0].join(1)  # time for the other one
        assert taken.empty()
        assert json.loads((tmp_path / "claim").read_text())["pid"] in [start.pid for start in starts]
    finally:
        for start in starts:
            start.kill()
            start.join()


def test_a_start_takes_the_place_of_one_that_died_while_it_took_a_claim(tmp_path, monkeypatch):
    monkeypatch.setenv(claims.OWNER, "slurm:72")
    dead, other = ({**claims._identity(), "pid": 2**22 + number, "owner": "slurm:72"} for number in (1, 2))
    (tmp_path / "claim").write_text(json.dumps(dead))
    (tmp_path / f"claim.after.{dead['pid']}.{dead['ts']}").write_text(json.dumps(other))
    assert claims.take(str(tmp_path), heartbeat=5.0)
    assert json.loads((tmp_path / "claim").read_text())["pid"] == os.getpid()
