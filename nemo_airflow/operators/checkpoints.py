"""From where a job's next attempt gets the checkpoints of the earlier ones: beside them, or from the shared store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nemo_airflow.artifacts.checkpoints import keep_checkpoints
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.operators.back_end import BackEnd


def find_checkpoint(back_end: BackEnd, earlier: Sequence[str], warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Returns what the store has of the newest checkpoints, as :attr:`Job.checkpoint`. Blocks.

    Args:
        back_end: Where the next attempt is to run.
        earlier: Keys of the earlier attempts, the newest first.
        warn: Called with what is there of a checkpoint that is not whole.

    Returns:
        None where no attempt has sent any, or where the next one finds them on the back-end itself.

    Raises:
        StoreUnavailable: The shared store cannot be reached.
        BackendUnavailable: The back-end was away for too long.
    """
    for key in earlier:
        if (found := keep_checkpoints(key, warn)) is not None:
            is_beside = back_end.executor.keeps_attempts_together and back_end.find(key) is not None
            return None if is_beside else found
    return None


def artifact_of(checkpoint: Mapping[str, Any] | None) -> tuple[Artifact, ...]:
    """Returns the artifact that a job is given besides those of its config, or none."""
    return (Artifact.from_json(checkpoint["artifact"]),) if checkpoint else ()
