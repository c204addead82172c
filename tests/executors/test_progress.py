"""What is said of a long transfer."""

import logging

from nemo_airflow.executors.progress import Progress
from nemo_airflow.job import Archive


def test_a_long_transfer_says_how_far_it_is_and_a_short_one_nothing(caplog):
    caplog.set_level(logging.INFO)
    archive = Archive("0" * 64, "file", 3 << 20, "input.model.file")
    Progress(archive, "'cluster'").add(1 << 20)
    assert not caplog.messages
    progress = Progress(archive, "'cluster'", every=0.0)
    for _ in range(3):
        progress.add(1 << 20)
    assert [text.split(",")[0] for text in caplog.messages] == [
        f"sending input.model.file to 'cluster': {part}.0 MiB of 3.0 MiB" for part in (1, 2, 3)
    ]
    assert caplog.messages[0].endswith("s left")
    assert caplog.messages[2].endswith("/s")
