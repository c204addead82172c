"""What a worker does when a job has ended and left outputs: fetch them, keep them, and only then let go of them.

A try that dies in the midst is followed by one that finds the job ended and does it again: nothing is let go before it
is kept, and that it is kept is noted in the task's state store before its back-end lets go.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_airflow import blocking, settings
from nemo_airflow.artifact_references import find_references, replace_references
from nemo_airflow.artifacts.keeping import keep_artifacts
from nemo_airflow.exceptions import ArtifactError, ExecutorError, JobFailed, NemoAirflowError, OutputsLost
from nemo_airflow.executors.base import Executor
from nemo_airflow.follow import Outcome
from nemo_airflow.job import FailureKind, JobHandle, JobState, JobStatus
from nemo_airflow.jobs.collecting import collect_outputs
from nemo_airflow.operators import attempt as attempts
from nemo_airflow.operators.back_end import BackEnd
from nemo_airflow.operators.direct import SentOutputs, is_empty
from nemo_airflow.phases import JobView
from nemo_airflow.progress import Progress, size_text
from nemo_airflow.store.incoming import Manifest
from nemo_airflow.tracking.base import PHASES
from nemo_airflow.tracking.keepers import Keepers
from nemo_airflow.tracking.outputs import OutputKeeper
from nemo_airflow.tracking.passage import Passage, is_below
from nemo_airflow.tracking.run import TrackedRun


class Keeping:
    """Keeps the outputs of one job that has ended.

    Args:
        executor: Where the job ran.
        handle: The job.
        run: Its run; None where only the artifacts that it returned are kept.
        outcome: How it ended.
        store: The state store of the task.
        log: The task's logger.
        view: What is known of the job, which is told that its outputs are kept; or None.
    """

    def __init__(
        self,
        executor: Executor,
        handle: JobHandle,
        run: TrackedRun | None,
        outcome: Outcome,
        store: attempts.StateStore,
        log: Any,
        view: JobView | None = None,
    ) -> None:
        self._view = view
        self._executor = executor
        self._handle = handle
        self._run = run
        self._keeper = OutputKeeper(run, inform=log.info, warn=log.warning) if run is not None else None
        self._outcome = outcome
        self._store = store
        self._log = log
        self._sent = SentOutputs(outcome, handle.key, executor, inform=log.info, warn=log.warning)

    def keep(self) -> Outcome:
        """Keeps the outputs, if no earlier try has.

        Returns:
            How the job ended: with artifacts that say where they are kept, or failed, where one of them is damaged.

        Raises:
            JobFailed: The job has succeeded, and its outputs cannot be kept.
        """
        if self._view is None:
            return self._keep()
        counts = self._outcome.outputs or {}
        self._view.keep(f"{counts.get('files', 0)} files, {size_text(counts.get('bytes', 0))}" if counts else "")
        try:
            outcome = self._keep()
        except BaseException as error:
            self._view.end_keeping(f"not kept: {error}")
            raise
        self._view.end_keeping(outcome.message if outcome.status != self._outcome.status else "")
        self._record_phases(self._view)
        return outcome

    def _record_phases(self, view: JobView) -> None:
        """Has the run show when its outputs were kept; what the follower of the job has recorded ends before."""
        if self._run is None:
            return
        try:
            ref = self._run.ref or self._run.open().ref
            if ref is not None:
                self._run.tracker.tag(ref, {PHASES: view.phases.to_text()})
        except NemoAirflowError as error:
            self._log.info("The phases of the run end before its outputs were kept: %s", error)

    def _keep(self) -> Outcome:
        folder = settings.home() / "outputs" / self._handle.key
        try:
            with _alone(folder, self._log.info):
                kept = self._find_kept()
                if kept is not None:
                    self._release()  # whoever has kept them may have died before
                else:
                    kept = self._keep_in(folder)
        except ArtifactError as error:
            status = JobStatus(JobState.FAILED, self._outcome.status.exit_code, FailureKind.ARTIFACT, str(error))
            return Outcome(status, message=str(error))
        except (NemoAirflowError, OSError) as error:
            # Another process, on another machine, may have kept them and let go of them meanwhile.
            kept = self._find_kept()
            if kept is None:
                self._fail(error)
                return self._outcome
        made = [each for each in find_references(self._outcome.result) if each.digest in kept]
        settled = {each: dataclasses.replace(each, address=kept[each.digest]) for each in made}
        return dataclasses.replace(self._outcome, result=replace_references(self._outcome.result, settled))

    def _find_kept(self) -> Mapping[str, str] | None:
        return attempts.find_kept(self._store, self._handle.key)

    def _keep_in(self, folder: Path) -> Mapping[str, str]:
        """Returns where the artifacts are kept that the job returned, by digest."""
        begun = time.monotonic()
        manifest = self._sent.accept()
        addresses = self._sent.keep_artifacts(manifest) if manifest is not None else None
        complete = True
        if manifest is None or addresses is None or not self._sent.keep_in_run(manifest, self._run):
            addresses, complete = self._fetch_and_keep(manifest, addresses, folder)
        counts = self._outcome.outputs or {}
        if counts:
            self._log.info(
                "Kept the outputs of job %s: %d files, %s, in %.1f s",
                self._handle.key, counts.get("files", 0), size_text(counts.get("bytes", 0)), time.monotonic() - begun,
            )  # fmt: skip
        if complete:
            self._note(addresses)
            self._release()
            self._sent.forget()
        else:  # what was refused is on the back-end alone
            self._log.warning("%s", self._where_they_are())
        return addresses

    def _fetch_and_keep(
        self, manifest: Manifest | None, kept: dict[str, str] | None, folder: Path
    ) -> tuple[dict[str, str], bool]:
        """Keeps outputs that pass this machine.

        Args:
            manifest: What the store has of them already, or None.
            kept: Where artifacts are kept already; None where they have to be kept, too.
            folder: Room on this machine's disk.

        Returns:
            Where artifacts are, by digest, and whether all is kept.
        """
        with contextlib.ExitStack() as stack:
            passing = self._bring(manifest, folder, stack, with_artifacts=kept is None)
            complete = self._put(passing)
            if kept is not None:
                return kept, complete
            result = keep_artifacts(self._outcome.result, self._handle.key, passing.outputs)
        own = [made for made in find_references(result) if made.job == self._handle.key]
        return {made.digest: made.address for made in own}, complete

    def _bring(
        self, manifest: Manifest | None, folder: Path, stack: contextlib.ExitStack, *, with_artifacts: bool
    ) -> _Passing:
        """Fetches the outputs from where they are nearest: this machine's disk, the store, the back-end."""
        whole = _Passing(folder, None, None)
        passing = self._begin(manifest, folder, stack, with_artifacts=with_artifacts)
        if manifest is not None and not self._executor.shares_filesystem:
            if passing.passage is None:
                self._sent.fetch(manifest, whole.outputs)
            else:
                self._sent.pass_on(manifest, passing.passage)
            return passing
        try:
            self._collect(passing)
        except (ExecutorError, OSError):
            if not self._sent.fetch_announced(whole.outputs):
                raise
            return whole
        return whole if passing.is_empty and self._sent.fetch_announced(whole.outputs) else passing

    def _begin(
        self, manifest: Manifest | None, folder: Path, stack: contextlib.ExitStack, *, with_artifacts: bool
    ) -> _Passing:
        if self._keeper is not None and self._keeper.wants_whole_folder:
            return _Passing(folder, None, None)
        found = find_references(self._outcome.result) if with_artifacts else ()
        made = [each.output for each in found if each.job == self._handle.key]
        counts = self._outcome.outputs or {}
        progress = Progress("outputs kept", self._log.info, counts.get("bytes"))
        passage = Passage(folder, progress, is_below(made))
        stack.callback(passage.close)
        stored = self._sent.put_tree(manifest) if manifest is not None else ""
        keepers = stack.enter_context(self._keeper.begin(passage, stored)) if self._keeper is not None else None
        passage.start()
        return _Passing(folder, passage, keepers)

    def _collect(self, passing: _Passing) -> None:
        """Fetches the outputs; those that pass are handed to where they are kept, while they come."""
        passage, counts = passing.passage, self._outcome.outputs or {}
        into = passage.into if passage is not None else passing.outputs
        blocking.run(
            collect_outputs(
                self._executor, self._handle, into, counts=counts, inform=self._log.info, warn=self._log.warning,
                intake=passage,
            )
        )  # fmt: skip

    def _put(self, passing: _Passing) -> bool:
        """Waits until all is kept; returns whether all is, and nothing was refused for good."""
        if self._keeper is None:
            if passing.passage is not None:
                passing.passage.finish()
            return True
        if passing.keepers is None:
            return blocking.run(self._keeper.keep(passing.folder))
        return blocking.run(self._keeper.finish(passing.keepers))

    def _note(self, addresses: Mapping[str, str]) -> None:
        attempts.note_kept(self._store, self._handle.key, addresses)

    def _release(self) -> None:
        """Has the back-end let go of the outputs: one that is not told holds them for its own time, a pod its node."""
        back_end = BackEnd(self._executor, self._log.warning)
        try:
            back_end.release(self._handle)
        except (ExecutorError, OSError) as error:
            self._log.warning(
                "The back-end could not be told that the outputs of job %s are kept: %s; it holds them for a while: "
                "'nemo-airflow collect EXECUTOR %s --release' has it let go",
                self._handle.key, error, self._handle.key,
            )  # fmt: skip

    def _fail(self, error: Exception) -> None:
        key = self._handle.key
        if not self._outcome.succeeded:
            self._log.warning("The outputs of job %s are not kept: %s; %s", key, error, self._where_they_are())
            return
        if isinstance(error, OutputsLost):  # the next try runs the job again
            attempts.consume(self._store, key)
            raise JobFailed(
                f"job {key} has succeeded, and its outputs are lost: {error}; the next try runs the job again",
                FailureKind.OUTPUTS,
            )
        raise JobFailed(
            f"job {key} has succeeded, and its outputs are not kept: {error}; the next try keeps them without running "
            f"the job again; {self._where_they_are()}",
            FailureKind.OUTPUTS,
        )

    def _where_they_are(self) -> str:
        return f"they stay on the back-end for now: 'nemo-airflow collect EXECUTOR {self._handle.key}' fetches them"


@dataclasses.dataclass(frozen=True)
class _Passing:
    """The way that outputs take.

    Attributes:
        folder: Room on this machine's disk.
        passage: What they pass through; None where a collector has to see all of them first.
        keepers: Where they are kept then; None where only artifacts are.
    """

    folder: Path
    passage: Passage | None
    keepers: Keepers | None

    @property
    def outputs(self) -> Path:
        """Folder with the files of artifacts, once all have come."""
        return self.passage.root if self.passage is not None else self.folder / "outputs"

    @property
    def is_empty(self) -> bool:
        """Whether no file has come."""
        return not self.passage.count if self.passage is not None else is_empty(self.outputs)


@contextlib.contextmanager
def _alone(folder: Path, inform: Any) -> Iterator[None]:
    """Makes the folder, holds it for this process alone, and removes it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    waits = False
    while True:
        folder.mkdir(exist_ok=True)
        # The folder itself is the lock: it goes with what it holds, and whoever finds another there begins anew.
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(held), os.stat(folder)):
                break
        except (BlockingIOError, FileNotFoundError):
            if not waits:
                inform("another process keeps the outputs of this job: waiting for it")
            waits = True
        os.close(held)
        time.sleep(0.5)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)
