"""The driver of :class:`SSHExecutor`: starts, finds and ends processes of the host by shell scripts."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from nemo_airflow.exceptions import BackendUnavailable, SubmitError
from nemo_airflow.executors.base import Request
from nemo_airflow.executors.folder import parse_end
from nemo_airflow.executors.host import folders
from nemo_airflow.executors.host.driver import HostDriver, parse_marks
from nemo_airflow.executors.seen import GONE, RUNNING, Seen
from nemo_airflow.job import FailureKind, JobHandle

KIND = "ssh"

_CLAIM_WAIT = 30
"""Seconds for which a started runner may take to claim its job."""

# Reads the claim by the shell's own means: no process is started, also not for a thousand jobs.
_LOOK = """
boot=$(cat /proc/sys/kernel/random/boot_id) here=$(uname -n)
look() {
  [ -f "$1/claim" ] || { echo "$1 none"; return; }
  [ ! -f "$1/end.json" ] || { printf '%s ended ' "$1"; cat "$1/end.json"; return; }
  IFS=' ,' read -r _ pid _ ticks _ its_boot _ its_host _ <"$1/claim"
  [ -n "$its_host" ] || { echo "$1 damaged"; return; }
  [ "$its_host" = "\\"$here\\"" ] || { echo "$1 elsewhere $its_host"; return; }
  if [ "$its_boot" = "\\"$boot\\"" ] && read -r stat 2>/dev/null <"/proc/$pid/stat"; then
    set -- "$1" "$pid" "$ticks" ${stat##*) }
    [ "$4" = Z ] || [ "$4" = X ] || [ "${23}" != "$3" ] || { echo "$1 alive"; return; }
  fi
  # It may have written its end mark after the first look.
  [ ! -f "$1/end.json" ] || { printf '%s ended ' "$1"; cat "$1/end.json"; return; }
  echo "$1 dead"
}
"""


class SSHDriver(HostDriver):
    """Runs, finds and ends jobs as processes of the host."""

    async def find(self, keys: Sequence[str]) -> dict[str, JobHandle]:
        """See :meth:`Driver.find`."""
        answer = await self.shell.run(
            f"{folders.enter(self._root)}\ncd jobs || exit 21\n"
            f"for key in {' '.join(keys)}; do\n"
            '[ ! -f $key/claim ] || { printf "%s " $key; cat $key/claim; echo; }\ndone'
        )
        handles = [_parse_claim(key, claim) for key, _, claim in parse_marks(answer.text)]
        return {handle.key: handle for handle in handles if handle is not None}

    async def look(self, handles: Sequence[JobHandle]) -> dict[str, Seen]:
        """See :meth:`Driver.look`."""
        at = time.monotonic()
        keys = [handle.key for handle in handles]
        answer = await self.shell.run(
            f"{folders.enter(self._root)}\ncd jobs || exit 21\n{_LOOK}\nfor key in {' '.join(keys)}; do look $key; done"
        )
        words = {key: word for key, _, word in parse_marks(answer.text)}
        return {key: self._see(words.get(key, "none"), at) for key in keys}

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.cancel`."""
        keys = " ".join(handle.key for handle in handles)
        answer = await self.shell.run(f"""{folders.enter(self._root)}
{folders.mark_cancelled([handle.key for handle in handles])}
cd jobs || exit 0
{_LOOK}
for key in {keys}; do
  state=$(look $key | cut -c1-200)
  IFS=' ,' read -r _ pid _ 2>/dev/null <$key/claim
  case $state in
    "$key alive") kill -TERM $pid ;;
    "$key elsewhere"*) echo "$state" ;;
    # The runner died without ending what it had started: that has the job's key in its environment.
    "$key dead") grep -lsazx "NEMO_AIRFLOW_KEY=$key" /proc/[0-9]*/environ | cut -d/ -f3 | xargs -r kill -KILL ;;
  esac
done
true""")
        for key, _, word in parse_marks(answer.text):
            raise BackendUnavailable(f"job {key} cannot be cancelled: {self._elsewhere(word)}")

    async def survey(self) -> list[JobHandle]:
        """See :meth:`Driver.survey`."""
        answer = await self.shell.run(
            f"{folders.enter(self._root)}\ncd jobs || exit 21\n{_LOOK}\n"
            'for key in *; do [ "$(look $key | cut -c1-80)" != "$key alive" ] || echo $key; done'
        )
        return list((await self.find(answer.text.split())).values()) if answer.text.split() else []

    async def _launch(self, request: Request) -> JobHandle:
        # Twice is once: the second runner finds the claim of the first, and goes.
        answer = await self.shell.run(f"""{folders.enter(self._root)}
cd jobs/{request.key} || exit 21
setsid "$(command -v bash || echo sh)" {folders.START} >>log 2>&1 </dev/null &
waited=0
while [ ! -f claim ]; do
  kill -0 $! 2>/dev/null || [ -f claim ] || {{ tail -n 1 log >&2; exit 22; }}
  [ $waited -lt {_CLAIM_WAIT * 20} ] || exit 23
  sleep 0.05; waited=$((waited + 1))
done
cat claim""")
        if answer.code == 22:
            await self.shell.run(folders.remove(self._root, [request.key]))
            raise SubmitError(
                f"the job's runner did not start on the host of {self._cluster!r}: {answer.reason}",
                FailureKind.USER_ERROR,
            )
        if answer.code:
            raise BackendUnavailable(f"the host of {self._cluster!r} has not started the job: {answer.reason}")
        handle = _parse_claim(request.key, answer.text)
        if handle is None:
            raise SubmitError(
                f"{self._root}/jobs/{request.key}/claim on the host of {self._cluster!r} is damaged, as after a "
                "power cut: the job was started before, and is gone; remove the folder to run it again",
                FailureKind.NODE_FAILURE,
            )
        return handle

    def _see(self, line: str, at: float) -> Seen:
        word, _, rest = line.partition(" ")
        if word == "none":
            return Seen(at, note=f"no job of that key on the host of {self._cluster!r}")
        if word == "damaged":
            return Seen(at, note=f"the job's claim on the host of {self._cluster!r} is damaged, as after a power cut")
        if word == "elsewhere":
            return Seen(at, trouble=self._elsewhere(line))
        if word == "alive":
            return Seen(at, queue=RUNNING)
        mark = parse_end(rest) if word == "ended" else None
        return Seen(at, mark=mark) if mark is not None else Seen(at, queue=GONE)

    def _elsewhere(self, line: str) -> str:
        host = line.partition(" ")[2].strip('"')
        return (
            f"it runs on {host}, and connection {self._cluster!r} leads to another host just now: set the connection's "
            "host to the name of one host"
        )


def _parse_claim(key: str, text: str) -> JobHandle | None:
    """Returns the handle of the runner that has claimed a job; None where the claim is damaged."""
    try:
        claim = json.loads(text)
        return JobHandle(key, KIND, str(claim["pid"]), claim["host"], claim["ts"])
    except (ValueError, TypeError, KeyError):  # a power cut leaves an empty file of one that was linked, never flushed
        return None
