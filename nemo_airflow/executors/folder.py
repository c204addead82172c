"""A job's folder: the files by which runner and driver tell each other what they did."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_airflow.clean import LONGEST_MESSAGE, clean_text, clean_value, shorten_text
from nemo_airflow.exceptions import OutputsLost
from nemo_airflow.executors.base import LeaveOut
from nemo_airflow.executors.intake import Intake
from nemo_airflow.executors.processes import ProcessRef
from nemo_airflow.folders import written_at
from nemo_airflow.job import Archive, FailureKind, JobState, JobStatus
from nemo_airflow.runner import secret_env

TTL = "ttl"
"""Name of the file that says for how many seconds a folder is kept after its job's end."""

_STATES = {
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "timeout": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
}


def parse_end(text: str | bytes) -> dict[str, Any] | None:
    """Returns a runner's end mark, ``end.json``, as it can be stored and sent on; None where it is damaged."""
    try:
        end = clean_value(json.loads(text))
    except (ValueError, RecursionError):
        return None
    return end if isinstance(end, dict) else None


def status_of_end(end: Mapping[str, object]) -> JobStatus:
    """Returns the status that a runner's end record says.

    Args:
        end: The record's JSON object, from ``end.json`` or from the stream.
    """
    state = _STATES.get(str(end.get("state")), JobState.FAILED)
    error = end.get("error")
    reason = ""
    if isinstance(error, Mapping):
        reason = ": ".join(str(error[k]) for k in ("type", "message") if error.get(k))
    failure = FailureKind.parse(str(end["failure"])) if end.get("failure") else None
    if state is JobState.CANCELLED:
        failure = failure or FailureKind.CANCELLED
    elif state is JobState.FAILED:
        failure = failure or FailureKind.USER_ERROR
    code = end.get("exit_code")
    reason = shorten_text(clean_text(reason), LONGEST_MESSAGE)
    return JobStatus(state, code if isinstance(code, int) else None, failure, reason)


@dataclasses.dataclass(frozen=True)
class JobFolder:
    """One job's folder on a disk that this process sees."""

    path: Path

    @property
    def log(self) -> Path:
        """The file that holds the job's stream."""
        return self.path / "log"

    def lay_out(self, files: Mapping[str, str]) -> None:
        """Makes the folder with its first files; done again, it changes nothing."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, text in files.items():
            _write_atomic(self.path / name, text)

    def lay_out_secrets(self, values: Mapping[str, str]) -> None:
        """Brings the values of the job's secrets, in a file that its owner alone can read; its runner deletes it."""
        if values:
            _write_atomic(self.path / secret_env.FILE, json.dumps(values))

    def forget_secrets(self) -> None:
        """Deletes the values of the secrets of a job that does not run."""
        (self.path / secret_env.FILE).unlink(missing_ok=True)

    def bring(self, archive: Archive, path: Path) -> None:
        """Lays an archive of the package into the folder, without a copy where the disk allows it."""
        _link_or_copy(path, self.path / archive.name)

    def claim(self) -> ProcessRef | None:
        """Returns the runner that took the job, or None when none has, or its claim is damaged."""
        data = _read_json(self.path / "claim")
        if data is None or "pid" not in data or "ts" not in data:
            return None
        return ProcessRef(
            data["pid"], data.get("start_ticks"), data.get("boot_id", ""), data.get("host", ""), data["ts"]
        )

    def end_mark(self) -> dict[str, Any] | None:
        """Returns the runner's end mark, or None when there is none."""
        try:
            return parse_end((self.path / "end.json").read_bytes())
        except FileNotFoundError:
            return None

    def labels(self) -> dict[str, str]:
        """Returns the labels with which the job was submitted."""
        return dict((_read_json(self.path / "job.json") or {}).get("labels") or {})

    def ttl(self) -> float | None:
        """Returns the seconds for which the folder is kept after the job's end; None for no limit."""
        try:
            return float((self.path / TTL).read_text())
        except (OSError, ValueError):
            return None

    def written_at(self) -> float:
        """Returns when a file at the top of the folder was last written; infinity for a folder without a job."""
        if not (self.path / "job.json").is_file():
            return float("inf")
        return written_at(self.path)

    def mark_cancelled(self) -> None:
        """Says that the job is to be cancelled, also to a runner that has yet to start, and deletes its secrets."""
        (self.path / "cancel").touch()
        self.forget_secrets()

    def last_log_line(self) -> str:
        """Returns the end of the log, for an error message."""
        try:
            lines = self.log.read_text(errors="backslashreplace").strip().splitlines()
        except OSError:
            return "no log"
        return lines[-1] if lines else "its log is empty"

    def remove(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.path, ignore_errors=False)

    def copy_outputs(self, into: Path, leave_out: LeaveOut | None = None) -> list[Path]:
        """Copies ``outputs/``, where the runner has gathered all that is kept; see ``Driver.collect``.

        Raises:
            ExecutorError: The folder is gone.
        """
        copied = []
        for relative, source in self._outputs(leave_out):
            target = into / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(_relative_target(source))
            else:
                _link_or_copy(source, target)
            copied.append(relative)
        return sorted(copied)

    def _outputs(self, leave_out: LeaveOut | None) -> list[tuple[Path, Path]]:
        """Returns the outputs that can be kept, by their paths relative to the output folder; links come first."""
        root = self.path / "outputs"
        if not self.path.is_dir():
            raise OutputsLost(f"the outputs of job {self.path.name} are gone: its folder {self.path} was deleted")
        found = []
        for source in _files_under(root):
            relative = source.relative_to(root)
            if reason := _why_not(source, root):
                if leave_out is not None:
                    leave_out(f"{relative} {reason}")
                continue
            found.append((relative, source))
        return sorted(found, key=lambda each: (not each[1].is_symlink(), each[0]))

    def shows_outputs(self, mark: str, text: str) -> bool:
        """Returns whether this process sees a file with that text in the folder, and may read all outputs."""
        try:
            if (self.path / mark).read_text() != text:
                return False
            for parent, folders, names in os.walk(self.path / "outputs", onerror=_raise):
                for name in folders + names:
                    path = os.path.join(parent, name)
                    if not os.path.islink(path) and not os.access(path, os.R_OK):
                        return False
        except (OSError, UnicodeDecodeError):
            return False
        return True

    def hand_over_outputs(self, intake: Intake, leave_out: LeaveOut | None = None) -> list[Path]:
        """Has the outputs taken from where they are, without a copy; see ``Driver.collect``.

        Raises:
            OutputsLost: The folder is gone.
        """
        root = self.path / "outputs"
        intake.use_place(root)
        found = self._outputs(leave_out)
        for relative, source in found:
            if not source.is_symlink():
                intake.take_file(relative.as_posix(), source, passing=False)
                continue
            intake.take_link(relative.as_posix(), _relative_target(source))
            if source.is_dir():
                intake.take_folder(source.resolve().relative_to(root.resolve()).as_posix())
        return [relative for relative, _ in found]


def _raise(error: OSError) -> None:
    raise error


def _files_under(root: Path) -> Iterator[Path]:
    """Yields what is under a folder, apart from folders; links to folders too."""
    for folder, folders, names in os.walk(root):
        for name in names:
            yield Path(folder, name)
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                yield Path(folder, name)


def _why_not(file: Path, root: Path) -> str:
    """Returns why an output cannot be kept, or an empty string: a job must not publish other files of its machine."""
    if file.is_symlink():
        target = os.readlink(file)
        if not os.path.exists(file):
            return f"links to {target}, which is not there"
        if not file.resolve().is_relative_to(root.resolve()):
            return f"links to {target}, which is outside the job's outputs"
    elif not file.is_file():
        return "is neither a file, a folder nor a link"
    return ""


def _relative_target(link: Path) -> str:
    text = os.readlink(link)
    return text if not os.path.isabs(text) else os.path.relpath(link.resolve(), link.parent.resolve())


def _link_or_copy(source: Path, target: Path) -> None:
    # Under a name of its own first: another submit of the same job may do so at this moment, and a runner read it.
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        try:
            os.link(source.resolve(), new)
        except FileNotFoundError:
            raise
        except OSError:  # another disk, or one without links
            shutil.copy2(source, new)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)  # it is still there where both are names of one file


def _write_atomic(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:  # a power cut leaves an empty file of one that was linked and never flushed
        return None
    return data if isinstance(data, dict) else None
