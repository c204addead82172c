"""Several processes of a job on one machine, started by the runner itself."""

import pytest

SPAWN = ("{python}", "{runner}", "--spawn", "2", "{folder}")


@pytest.mark.parametrize("failing", ["0", "1"])
def test_process_that_closes_its_output_before_it_fails_fails_the_job(run, failing):
    code = f"""
import os, time

def close_and_fail():
    os.close(1)
    os.close(2)
    if os.environ["RANK"] == "{failing}":
        time.sleep(0.5)
        os._exit(3)
"""
    ran = run("close_and_fail", code=code, launch=SPAWN)
    assert (ran.code, ran.end["state"], ran.end["exit_code"]) == (3, "failed", 3)
