"""Supervises one job: claims it, starts it, forwards its output, ends it, and reports how it ended.

There are two processes: this one, and the child that it forks to run the user's code. So an end mark is
written even when the code kills its process, and a stuck interpreter cannot stop the
heartbeat. The child is forked before anything heavy is imported: no second interpreter is started.
"""

import itertools
import json
import os
import selectors
import signal
import socket
import sys
import time
from typing import Any, Dict, List, Optional

from nemo_airflow.runner import claims, outputs, ranks, secret_env, signals, uploading, zstd_mark
from nemo_airflow.runner.error_record import bound_error
from nemo_airflow.runner.masking import open_writer
from nemo_airflow.runner.node_samples import NodeSamples
from nemo_airflow.runner.report_server import ReportServer
from nemo_airflow.runner.resources import Sampler, oom_kills
from nemo_airflow.runner.stream_tail import KEEP

VERSION = "1"
EXIT_ALREADY_CLAIMED = 75
EXIT_BAD_JOB = 2
EXIT_TIMEOUT = 124
EXIT_PREEMPTED = 128 + signal.SIGTERM

SETUP_FAILED = "NEMO_AIRFLOW_SETUP_FAILED"
"""Environment variable with the set-up line that failed before the runner was started."""

JOB_VERSION = 1

LINGER = "NEMO_AIRFLOW_LINGER"
"""Seconds to wait after the job's end until its outputs are fetched, where they could not be read later."""

_TOLD_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_LAST_WORDS = 5.0
"""Seconds after the grace period in which a full disk, or a stalled reader, may accept the stream's end."""

_DRAIN = 2.0
_LAST_KILL = 3.0
_AGAIN = 1.0


def main(argv: List[str]) -> int:
    """Runs the job in the folder on the command line; returns the exit code."""
    if len(argv) != 2:
        sys.stderr.write("usage: python -m nemo_airflow.runner JOB_FOLDER\n")
        return EXIT_BAD_JOB
    folder = os.path.abspath(argv[1])
    try:
        with open(os.path.join(folder, "job.json"), encoding="utf-8") as file:
            job = json.load(file)
        if job.get("version") != JOB_VERSION:
            raise ValueError("version {!r}, this runner knows {}".format(job.get("version"), JOB_VERSION))
    except (OSError, ValueError, AttributeError) as error:
        sys.stderr.write(f"{folder}/job.json is not a job: {error}\n")
        return EXIT_BAD_JOB
    # Anyone who sees the claim may signal this process to end: signals stay blocked until it can report its end.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_TOLD_TO_END, *signals.WARNINGS))
    if not claims.take(folder, _heartbeat(job)):
        return EXIT_ALREADY_CLAIMED
    return Supervisor(folder, job).run()


def _heartbeat(job: Dict[str, Any]) -> float:
    return float(job.get("heartbeat") or 30)


class Supervisor:
    """One job, from its claim to its end mark.

    Args:
        folder: The job's folder.
        job: The job, from ``job.json``.
    """

    def __init__(self, folder: str, job: Dict[str, Any]) -> None:
        self._folder = folder
        self._job = job
        self._secrets, self._missing_secret = secret_env.take(folder, job)
        kept = folder if os.environ.get(KEEP) else None
        self._uploading = uploading.Uploading(folder, self._secrets)
        self._fetcher = _open_fetcher(folder, self._secrets)
        signatures = self._fetcher.secrets if self._fetcher is not None else ()
        masked = (*self._secrets.values(), *self._uploading.secrets, *signatures)
        self._writer = open_writer(job, masked, 1, folder=kept, waiting=self._keep_watch)
        self._selector = selectors.DefaultSelector()
        self._child = 0
        self._status = 0
        self._started = time.time()
        self._ending = ""
        """Why the job is ended early: ``cancelled`` or ``timeout``."""
        self._again_at = 0.0
        self._kill_at = 0.0
        self._give_up_at = float("inf")
        """Time at which the job reaches its time limit."""
        self._last_words_until = float("inf")
        self._beat_at = 0.0
        self._warned: List[int] = []
        """Warning signals that are not yet passed on."""
        self._unhandled: List[int] = []
        """Warning signals that no process of the job handles."""
        self._signalled = False
        self._oom_kills = oom_kills()
        self._checkpoint = ""
        """Name of the newest checkpoint."""
        self._zstd_mark = zstd_mark.take(folder)

    def run(self) -> int:
        """Runs the job; returns its exit code, as the exit code of this process."""
        wake_read, wake_write = os.pipe()
        for fd in (wake_read, wake_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in _TOLD_TO_END:
            signal.signal(number, self._on_signal)
        for number in signals.WARNINGS:
            signal.signal(number, lambda number, frame: self._warned.append(number))
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_TOLD_TO_END, *signals.WARNINGS))
        self._start_clock()
        self._writer.record("start", self._identity())
        if self._cancel_asked():
            return self._finish(self._early_end())
        if line := os.environ.get(SETUP_FAILED):
            return self._finish(_refusal(f"a line of setup_lines failed: {line}", "user_error"))
        if self._missing_secret:
            return self._finish(_refusal(self._missing_secret, "user_error"))
        try:
            self._prepare_folder()
        except Exception as error:  # noqa: BLE001 - whatever keeps the job from starting is how it ended
            failure = getattr(error, "failure", "user_error")
            refusal = _refusal(f"the job's folder cannot be prepared: {error}", failure)
            return self._finish(self._early_end() if self._ending else refusal)
        others = self._folder if self._job.get("launch") else ""
        self._server = ReportServer(self._writer, self._selector, self._uploading.announce, self._note_saved, others)
        output, child_output = os.pipe()
        self._child = self._fork(child_output, closing=(output, wake_read, wake_write))
        os.close(child_output)
        os.set_blocking(output, False)
        self._open_output = True
        self._selector.register(output, selectors.EVENT_READ, lambda: self._forward(output))
        self._selector.register(wake_read, selectors.EVENT_READ, lambda: _drain(wake_read))
        self._watch()
        self._sweep(output)
        self._server.close()
        self._samples.close()
        return self._finish(self._how_it_ended())

    def _identity(self) -> Dict[str, Any]:
        return {
            "key": self._job["key"],
            "runner": VERSION,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "python": sys.version.split()[0],
        }

    def _prepare_folder(self) -> None:
        work = os.path.join(self._folder, "work")
        for folder in (work, os.path.join(self._folder, outputs.FOLDER)):
            os.makedirs(folder, exist_ok=True)
        ranks.forget(self._folder)
        package = self._job.get("package")
        unpacked = os.path.join(self._folder, ".unpacked")
        # A restarted job finds its own files, such as a checkpoint.
        if package and not os.path.exists(unpacked):
            from nemo_airflow.runner.unpack import ZstdUnreadableError, unpack_package

            if self._fetcher is not None:
                from nemo_airflow.runner import inputs

                inputs.fetch_package(self._fetcher, self._say, self._is_to_end)
            try:
                unpack_package(self._folder, package, work)
            except ZstdUnreadableError:
                zstd_mark.write_record(self._zstd_mark, False)
                raise
            open(unpacked, "w").close()
        if archives := self._job.get("inputs"):
            from nemo_airflow.runner import inputs

            inputs.bring(self._folder, self._job["plan"], archives, self._fetcher, self._say, self._is_to_end)
        if any(self._job.get(each) for each in ("earlier", "checkpoint")) or os.path.isdir(self._checkpoints):
            from nemo_airflow.runner import checkpoints

            self._checkpoint = checkpoints.bring(self._folder, self._job, self._fetcher, self._say, self._is_to_end)
        if self._checkpoint:
            self._writer.record("checkpoint", {"path": self._checkpoint})

    @property
    def _checkpoints(self) -> str:
        return os.path.join(self._folder, "checkpoints")

    def _note_saved(self, report: Dict[str, Any]) -> None:
        self._checkpoint = str(report["path"])
        self._uploading.send_checkpoints((self._job.get("checkpoint") or {}).get("blobs") or ())
        values = "".join(f", {name}={value}" for name, value in report["values"].items())
        self._say(f"checkpoint {self._checkpoint} is whole: {report['bytes']} bytes{values}")

    def _is_to_end(self) -> bool:
        self._keep_watch()
        return bool(self._ending)

    def _say(self, text: str) -> None:
        self._writer.say(text)

    def _fork(self, output: int, closing: Any) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for fd in closing:
                os.close(fd)
            self._selector.close()
            from nemo_airflow.runner import child

            job = {**self._job, "env": {**(self._job.get("env") or {}), **self._secrets}}
            code = child.run(self._folder, job, output, self._server.path)
        except BaseException:  # noqa: BLE001 - a fault of the runner itself: to the log, or nobody would know
            import traceback

            os.write(2, traceback.format_exc().encode())
        finally:
            # Never returns into the supervisor's code: only the parent continues there.
            os._exit(code)

    def _start_clock(self) -> None:
        limit = self._job.get("time_limit")
        self._give_up_at = time.monotonic() + float(limit) if limit else float("inf")

    # Watching

    def _watch(self) -> None:
        """Forwards all output until the child has ended."""
        from nemo_airflow.runner import environment

        self._writer.record("environment", environment.capture(self._job, os.path.join(self._folder, "work")))
        if self._job.get("package"):
            # After the job has started: the job neither waits for this nor finds the modules that it imports.
            zstd_mark.record_result(self._zstd_mark, self._folder)
        sampler = Sampler(self._child, self._job)
        self._samples = NodeSamples(self._folder, self._selector, self._writer.record)
        self._server.forward = self._samples.forward
        heartbeat = _heartbeat(self._job)
        next_heartbeat = time.monotonic() + heartbeat
        interval = float(self._job.get("sample_interval") or 0)
        next_sample = time.monotonic() + min(1.0, interval) if interval else float("inf")
        self._start_clock()
        while not self._reap():
            self._keep_watch()
            self._say_unhandled()
            now = time.monotonic()
            if now >= next_heartbeat:
                self._writer.record("heartbeat")
                next_heartbeat = now + heartbeat
            if now >= next_sample:
                self._sample(sampler)
                next_sample = now + interval
            self._server.tick()
            self._samples.tick()
            self._uploading.pass_on_warnings(self._writer)
            self._writer.tick()
            # At least five times a second, for waiting batches of reports.
            wake = min(next_heartbeat, next_sample, self._give_up_at, self._kill_at or float("inf"), now + 0.2)
            self._select(max(wake - time.monotonic(), 0))

    def _keep_watch(self) -> bool:
        """Does what is due even if the stream is blocked; returns whether to keep waiting for the stream."""
        now = time.monotonic()
        if now >= self._give_up_at:
            self._give_up_at = float("inf")
            self._end_early("timeout")
        if self._child:
            if self._again_at and now >= self._again_at:
                self._again_at = 0.0
                signals.kill(self._child, signal.SIGTERM)
            if self._kill_at and now >= self._kill_at:
                self._kill_at = now + 1
                self._signal_child(signal.SIGKILL)
            while self._warned:
                number = self._warned.pop()
                if not signals.pass_on(self._child, number):
                    self._unhandled.append(number)
        if now >= self._beat_at:
            claims.show_alive(self._folder)
            self._beat_at = now + _heartbeat(self._job)
        return now < self._last_words_until

    def _say_unhandled(self) -> None:
        while self._unhandled:
            self._writer.record("warning", {"message": signals.explain_unhandled(self._unhandled.pop())})

    def _sample(self, sampler: Sampler) -> None:
        try:
            values = sampler.sample()
        except OSError:  # no file descriptor or process is available now
            return
        if values:
            self._samples.put(values)

    def _select(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            key.data()

    def _forward(self, fd: int) -> None:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        if data:
            self._writer.output(data)
        else:
            self._selector.unregister(fd)
            self._open_output = False

    def _reap(self) -> bool:
        # WNOWAIT: the id stays taken until the group was swept, so that no other group can get it.
        info = os.waitid(os.P_PID, self._child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return info is not None

    # Ending

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signalled = True
        self._end_early("cancelled")

    def _end_early(self, why: str) -> None:
        if self._ending:
            return
        self._ending = why
        self._kill_at = time.monotonic() + float(self._job.get("grace") or 0)
        self._last_words_until = self._kill_at + _LAST_WORDS
        if not self._job.get("launch"):
            # Python handles a signal that arrives just before a blocking system call only after that call: so
            # it is sent once more, to the job's own process and not to programs that its clean-up has started by then.
            self._again_at = time.monotonic() + _AGAIN
        if self._child:
            self._signal_child(signal.SIGTERM)

    def _cancel_asked(self) -> bool:
        return bool(self._ending) or os.path.exists(os.path.join(self._folder, "cancel"))

    def _signal_child(self, number: int) -> None:
        try:
            os.killpg(self._child, number)
        except (ProcessLookupError, PermissionError):
            # The group does not exist yet, or only as a zombie.
            if number == signal.SIGKILL or not self._reap():
                signals.kill(self._child, number)

    def _sweep(self, output: int) -> None:
        """Ends processes that the job left running, and reads the last of its output."""
        deadline = time.monotonic() + _DRAIN
        while self._open_output and time.monotonic() < deadline:
            self._select(0.05)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not signals.group_lives(self._child):
                break
            signals.kill_group(self._child, number)
            deadline = time.monotonic() + _LAST_KILL
            while signals.group_lives(self._child) and time.monotonic() < deadline:
                self._select(0.02)
        deadline = time.monotonic() + _DRAIN
        while self._open_output and time.monotonic() < deadline:
            self._select(0.05)
        _, self._status, usage = os.wait4(self._child, 0)
        self._child = 0  # from here on the id may belong to another process
        self._give_up_at = float("inf")
        if self._job.get("sample_interval"):
            # For the whole life of the job's processes: a short job has no other sample.
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            seconds = round(usage.ru_utime + usage.ru_stime, 3)
            self._samples.put({"peak_rss_bytes": peak, "cpu_seconds": seconds})

    def _how_it_ended(self) -> Dict[str, Any]:
        outcome = (ranks.outcome(self._folder) if self._job.get("launch") else self._server.outcome) or {}
        by_signal = os.WTERMSIG(self._status) if os.WIFSIGNALED(self._status) else None
        code = 128 + by_signal if by_signal else os.WEXITSTATUS(self._status)
        end = {
            "exit_code": code,
            "signal": by_signal,
            "failure": None,
            "result": outcome.get("result"),
            "error": outcome.get("error"),
        }
        finished = "result" in outcome and code == 0
        if self._ending and not finished:
            end.update(self._early_end())
        elif code == 0 and outcome.get("failure") == "preempted":
            end.update(state="failed", failure="preempted", exit_code=EXIT_PREEMPTED)
        elif code == 0:
            end.update(state="succeeded", error=None)
        else:
            end.update(state="failed", failure=outcome.get("failure") or self._failure(by_signal))
            if end["error"] is None:
                end["error"] = {"type": "", "message": _reason(code, by_signal), "traceback": ""}
        return end

    def _early_end(self) -> Dict[str, Any]:
        """Returns the end of a job that was cancelled or reached its time limit."""
        if self._ending == "timeout":
            message = "the job reached its time limit of {:g} s".format(self._job["time_limit"])
            error = {"type": "", "message": message, "traceback": ""}
            return {"state": "timeout", "exit_code": EXIT_TIMEOUT, "failure": "timeout", "error": error}
        return {"state": "cancelled", "exit_code": 128 + signal.SIGTERM, "failure": "cancelled", "error": None}

    def _failure(self, by_signal: Optional[int]) -> str:
        # The counter belongs to the control group, which all users share on a bare machine.
        killed_for_memory = by_signal == signal.SIGKILL and oom_kills() > self._oom_kills
        return "out_of_memory" if killed_for_memory else "user_error"

    def _finish(self, end: Dict[str, Any]) -> int:
        base: Dict[str, Any] = {
            "signal": None,
            "failure": None,
            "result": None,
            "error": None,
            "started": self._started,
            "ended": time.time(),
            "outputs": self._gather(),
            "sent": self._send_outputs(),
            "told_to_end": self._ending == "cancelled",
            "checkpoint": self._checkpoint,
        }
        base.update(end)
        if base["error"] is not None:
            base["error"] = bound_error(base["error"])
        if complaint := secret_env.forget_at_end(self._folder, bool(base["told_to_end"])):
            self._writer.record("warning", {"message": complaint})
        text = self._writer.finish("end", base)
        claims.keep_end(self._folder, text, self._keep_watch)
        if base["outputs"]["files"]:
            self._linger()
        return int(base["exit_code"])

    def _gather(self) -> Dict[str, int]:
        for complaint in outputs.gather(self._folder, self._job.get("outputs") or ()):
            self._writer.record("warning", {"message": f"not all outputs are kept: {complaint}"})
        return outputs.measure(self._folder)

    def _send_outputs(self) -> str:
        """Returns the digest of the manifest of all outputs, where they went straight to the store."""
        self._signalled = False
        next_heartbeat = time.monotonic() + _heartbeat(self._job)
        # Whoever ends a job early, or at its time limit, may not wait: its end has to be written. Only what the next
        # attempt goes on from has the rest of the grace period.
        checkpoints = self._uploading.finish_checkpoints(lambda: not self._ending or time.monotonic() < self._kill_at)
        outputs_sent = self._uploading.finish(lambda: bool(self._ending) or self._signalled)
        for line in itertools.chain(checkpoints, outputs_sent):
            self._keep_watch()
            if line:
                self._say(line)
            if time.monotonic() >= next_heartbeat:
                self._writer.record("heartbeat")
                next_heartbeat = time.monotonic() + _heartbeat(self._job)
        self._uploading.pass_on_warnings(self._writer)
        return self._uploading.manifest

    def _linger(self) -> None:
        """Waits until the outputs are fetched, or nobody has fetched any of them for the time that is given."""
        patience = float(os.environ.get(LINGER) or 0)
        sending = os.path.join(self._folder, outputs.SENDING)
        self._signalled = False
        moved_at, moved = time.monotonic(), _changed(sending)
        while time.monotonic() - moved_at < patience and not self._signalled and not outputs.is_sent(self._folder):
            time.sleep(0.05)
            if _changed(sending) != moved:
                moved_at, moved = time.monotonic(), _changed(sending)


def _open_fetcher(folder: str, secrets: Dict[str, str]) -> Any:
    """Returns what fetches artifacts from the store, where the job was granted that; None where it was not.

    The grant is taken from the secrets, and from this process's environment: the job's own code has no use for it.
    """
    text = secrets.pop(secret_env.FETCH_GRANT, "")
    os.environ.pop(secret_env.FETCH_GRANT, None)
    if not text:
        return None
    from nemo_airflow.runner.fetching import Fetcher

    return Fetcher(folder, json.loads(text))


def _refusal(message: str, failure: str) -> Dict[str, Any]:
    error = {"type": "", "message": message, "traceback": ""}
    return {"state": "failed", "exit_code": EXIT_BAD_JOB, "failure": failure, "error": error}


def _reason(code: int, by_signal: Optional[int]) -> str:
    if by_signal == signal.SIGKILL:
        return "killed by SIGKILL: it ran out of memory (see peak_rss_bytes), or someone killed it"
    if by_signal in signals.WARNINGS:
        return f"killed by {signal.Signals(by_signal).name}, a signal that it does not handle"
    if by_signal:
        return f"killed by {signal.Signals(by_signal).name}"
    return f"ended with exit code {code}"


def _changed(path: str) -> Optional[int]:
    """Returns when a file was last changed, in nanoseconds; None if there is none."""
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return None


def _drain(fd: int) -> None:
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        return
