"""Job folders on a host that is reached by a shell: the scripts that make, read and remove them.

Under one root: ``jobs/<key>`` a job, ``packages/<digest>`` the archives of code, kept by content,
``runner/<digest>`` the runner, ``zstd/<mark>`` what the runner found there (:mod:`nemo_airflow.runner.zstd_mark`).
A job's folder is what :mod:`nemo_airflow.executors.folder` is on a disk of this machine, and ``start.sh``, which
the batch system or a shell runs.

All functions are pure: they return the text of POSIX shell scripts, and read what these print.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shlex
from collections.abc import Iterable, Mapping, Sequence

from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.executors import shipping
from nemo_airflow.executors.base import Chunk, Cursor
from nemo_airflow.executors.folder import TTL
from nemo_airflow.job import Archive, Job
from nemo_airflow.runner import secret_env
from nemo_airflow.runner import zstd_mark as marks
from nemo_airflow.runner.fetching import HOST_START
from nemo_airflow.runner.supervisor import SETUP_FAILED

START = HOST_START
NO_RUNNER, NO_PACKAGE = "no runner", "no package"

_SHARED_DAYS = 7
"""Days for which what jobs share is kept after it was last wanted: packages, runners, marks."""

_GZIP, _ZSTD = "tar.gz", "tar.zst"

_KEY = re.compile(r"[a-z0-9-]+")
"""A job's key: what else is among the jobs is not ours, and has no place in a script."""


def runner_path() -> str:
    """Returns where the runner's program is, seen from a job's folder."""
    return f"../../runner/{shipping.runner_digest()}/{shipping.ENTRY}"


def zstd_mark(*about: str | None) -> str:
    """Returns the name of the mark for what decides which programs a job's runner finds; another runner asks anew."""
    text = json.dumps([shipping.runner_digest(), *about])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def job_files(job: Job, start: str, ttl: float | None) -> dict[str, str]:
    """Returns the files of a job's folder: the job, the script that starts it, and for how long it is kept."""
    return {"job.json": job.dumps(), START: start, **({TTL: f"{ttl:g}\n"} if ttl is not None else {})}


def start_lines(setup_lines: str | None, python: str, mark: str = "") -> str:
    """Returns the end of a start script: the author's own lines, then the runner in the shell's place.

    Args:
        setup_lines: The author's lines.
        python: The interpreter.
        mark: From :func:`zstd_mark`; empty for an executor that keeps none.
    """
    run = f'exec {shlex.quote(python)} {shlex.quote(runner_path())} "$PWD"\n'
    # The runner says so on the job's stream, and leaves the end mark.
    setup = checked_setup(setup_lines, f'export {SETUP_FAILED}="$setup_failed"; {run.rstrip()}') if setup_lines else ""
    told = f"export {marks.MARK}=../../zstd/{mark}\n" if mark else ""
    return f"{told}{setup}{run}"


_WATCH_EVERY = 2


def watch_for_cancel(start: str, exit_codes: Mapping[int, int] | None = None) -> str:
    """Returns the end of a start script for a scheduler that signals every process of a job, or none.

    The shell stays beside the runner, and ends it when the job is marked as cancelled. Warnings by SIGUSR1 and SIGUSR2
    are ignored by all processes that have no handler for them.

    Args:
        start: From :func:`start_lines`.
        exit_codes: What to say instead of exit codes that mean something else to the scheduler.
    """
    other = "".join(f"  {code}) code={instead} ;;\n" for code, instead in (exit_codes or {}).items())
    return f"""trap : USR1 USR2
# A process of its own, which becomes the runner.
(
trap '' USR1 USR2
{start.rstrip()}
) &
runner=$!
(
  while kill -0 $runner 2>/dev/null && [ ! -e cancel ]; do sleep {_WATCH_EVERY}; done
  [ ! -e cancel ] || kill -TERM $runner 2>/dev/null
) &
# A warning ends the waiting, not the runner.
until wait $runner; ! kill -0 $runner 2>/dev/null; do :; done
wait $runner
code=$?
case $code in
{other}esac
exit $code
"""


_COMMAND_NOT_FOUND = (
    ": no such command; this shell is not a login shell, so begin setup_lines with 'source /etc/profile' "
    "where a profile defines the command, as it does for 'module'"
)


def checked_setup(setup_lines: str, on_failure: str) -> str:
    """Returns the author's set-up lines; the first line that fails ends them.

    Only bash detects a failing line: another shell runs them all. A failure within a sourced script does not count, and
    a line that may fail ends with ``|| true``.

    Args:
        setup_lines: The author's lines.
        on_failure: Shell commands, which find the line with its exit code in ``$setup_failed``.
    """
    failed = 'setup_code=$? setup_failed="$BASH_COMMAND (exit code $?)"'
    hint = f'[ "$setup_code" != 127 ] || setup_failed="$setup_failed{_COMMAND_NOT_FOUND}"'
    trap = f"{failed}; [ ${{#BASH_SOURCE[@]}} -gt 1 ] || {{ trap - ERR; {hint}; {on_failure}; }}"
    return (
        f'[ -z "${{BASH_VERSION:-}}" ] || trap {shlex.quote(trap)} ERR\n'
        f"{setup_lines.rstrip()}\n"
        '[ -z "${BASH_VERSION:-}" ] || trap - ERR\n'
    )


def enter(root: str) -> str:
    """Returns the line that goes to the root; ``~`` is the user's home folder."""
    home = root.removeprefix("~/") if root.startswith("~/") else root
    return f"cd {shlex.quote(home)} 2>/dev/null || exit 21"


def enter_job(root: str, key: str) -> str:
    """Returns the lines that go to a job's folder."""
    return f"{enter(root)}\ncd jobs/{key} || exit 21"


def lay_out(root: str, key: str, files: Mapping[str, str], archives: Sequence[Archive]) -> str:
    """Returns a script that makes a job's folder and prints what else has to be sent for it.

    Done again, it changes nothing. It ends with code 20 and the reason where it cannot write.
    """
    home = root.removeprefix("~/") if root.startswith("~/") else root
    lines = [
        "umask 077",
        f"mkdir -p {shlex.quote(home)} && cd {shlex.quote(home)} || exit 20",
        f"mkdir -p runner packages jobs/{key} || exit 20",
    ]
    for name, text in sorted(files.items()):
        end = f"end-{secrets.token_hex(8)}"
        path = f"jobs/{key}/{shlex.quote(name)}"
        # Once only: a job that runs already must not find its files replaced.
        lines.append(f"[ -f {path} ] || {{ cat >{path}.{end} <<'{end}' && mv {path}.{end} {path}; }} || exit 20")
        lines.append(f"{text.removesuffix(chr(10))}\n{end}")
    # Its time tells how long ago it was last wanted.
    runner = f"runner/{shipping.runner_digest()}"
    lines.append(f"[ -d {runner} ] && touch -c {runner} || echo {shlex.quote(NO_RUNNER)}")
    for archive in archives:
        # What is here as tar.gz is not sent again as tar.zst: the digest is that of the same content.
        if archive.origin:
            lines.append(_take_from_job(archive))
        ways = " || ".join(_lay(key, archive, format) for format in _formats(archive))
        # What the job fetches by itself it fetches if it is not here.
        lines.append(
            f"{ways} || " + ("true" if archive.is_fetched else f"echo {shlex.quote(NO_PACKAGE)} {archive.name}")
        )
    return "\n".join(lines)


def _take_from_job(archive: Archive) -> str:
    """Returns a line that takes an artifact from the folder of the job that made it, if that is here and unchanged."""
    stored, made = f"packages/{archive.digest}.{archive.format}", shlex.quote(f"jobs/{archive.origin}")
    return (
        f"[ -f {stored} ] || [ ! -f {made} ] || "
        f'[ "$(sha256sum <{made} | cut -d" " -f1)" != {archive.digest} ] || ln {made} {stored} 2>/dev/null || true'
    )


def _formats(archive: Archive) -> Sequence[str]:
    return [archive.format, _GZIP] if archive.format == _ZSTD else [archive.format]


def _lay(key: str, archive: Archive, format: str) -> str:
    stored = f"packages/{archive.digest}.{format}"
    target = f"jobs/{key}/{archive.name.removesuffix(archive.format)}{format}"
    # The time of access tells how long ago it was last wanted; that of change is the content's. Where another process
    # has made the link since the first look, neither `ln` nor `cp` succeeds.
    return (
        f"[ -f {target} ] || {{ touch -ac {stored} && ln {stored} {target} 2>/dev/null; }}"
        f" || cp {stored} {target} 2>/dev/null || [ {stored} -ef {target} ]"
    )


def take_runner(root: str) -> str:
    """Returns a command that takes the runner's files as a tar archive; they appear whole."""
    target = f"runner/{shipping.runner_digest()}"
    return _command(
        enter(root),
        "new=$(mktemp -d runner/.new-XXXXXX) || exit 20",
        "tar -xf - -C $new || { rm -rf $new; exit 20; }",
        f"mv -T $new {target} 2>/dev/null || {{ rm -rf $new; [ -d {target} ]; }}",
    )


def take_archive(root: str, archive: Archive, size: int) -> str:
    """Returns a command that takes an archive of a package; it appears whole, or not at all."""
    return _command(
        enter(root),
        "new=$(mktemp packages/.new-XXXXXX) || exit 20",
        f'cat >$new && [ "$(wc -c <$new)" -eq {size} ] || {{ rm -f $new; exit 20; }}',
        f"mv $new packages/{archive.digest}.{archive.format}",
    )


def take_secrets(root: str, key: str, size: int) -> str:
    """Returns a command that takes the values of a job's secrets into a file that its owner alone can read.

    A job that has begun has read, and deleted, what came before.
    """
    return _command(
        enter(root),
        f"[ ! -e jobs/{key}/claim ] || exit 0",
        f"umask 077; new=$(mktemp jobs/{key}/.new-XXXXXX) || exit 20",
        f'cat >$new && [ "$(wc -c <$new)" -eq {size} ] || {{ rm -f $new; exit 20; }}',
        f"mv $new jobs/{key}/{secret_env.FILE}",
    )


def ask_mark(root: str, mark: str) -> str:
    """Returns a script that succeeds where jobs have found that they read ``tar.zst``, and none that it does not."""
    yes, no = f"zstd/{mark}{marks.YES}", f"zstd/{mark}{marks.NO}"
    return f"{enter(root)}\n[ -e {yes} ] && [ ! -e {no} ] && {{ touch -c {yes}; true; }}"


def ask_job(root: str, key: str) -> str:
    """Returns a script that succeeds where a job's folder is there."""
    return f"{enter(root)}\n[ -d jobs/{key} ]"


def put_mark(root: str, key: str, name: str, text: str) -> str:
    """Returns a script that leaves a file in a job's folder, and prints where that folder is."""
    return f"{enter(root)}\ncd jobs/{key} || exit 21\numask 077\nprintf %s {text} >{name} && pwd -P"


def remove_mark(root: str, key: str, name: str) -> str:
    """Returns a script that deletes that file."""
    return f"{enter(root)}\nrm -f jobs/{key}/{name}"


def send_outputs(root: str, key: str) -> str:
    """Returns a command that writes a job's outputs as a tar archive, an empty one where there are none.

    Links come first, and the rest in a fixed order; a tar that cannot be told the names has an order of its own.
    """
    return _command(
        enter(root),
        f"cd jobs/{key}/outputs 2>/dev/null || {{ head -c 10240 /dev/zero; exit 0; }}",
        "case $(tar --version 2>/dev/null) in *GNU*) ;; *) exec tar -cf - . ;; esac",
        "{ find . -type l -print0 | LC_ALL=C sort -z; find . ! -type l -print0 | LC_ALL=C sort -z; } | "
        "tar --null --no-recursion -T - -cf -",
    )


def read(root: str, cursors: Sequence[Cursor]) -> str:
    """Returns a script that prints what the logs have after each cursor: one ``stat`` for all of them.

    Each log is opened before that: a network file system asks its server for a file's size then, and only then.
    """
    offsets = "".join(f"{cursor.handle.key} {cursor.offset} {cursor.limit}\n" for cursor in cursors)
    return f"""{enter(root)}
cd jobs || exit 21
offsets=$(cat <<'end'
{offsets}end
)
echo "$offsets" | while read -r key _; do {{ true <"$key/log"; }} 2>/dev/null && echo "$key/log"; done |
  xargs -r stat -c '%s %n' 2>/dev/null |
  {{ cat; echo; echo "$offsets"; }} |
  awk 'NF == 0 {{ sized = 1; next }}
       !sized {{ size[$2] = $1; next }}
       size[$1 "/log"] > $2 {{ print $1 "/log", $2, size[$1 "/log"], $3 }}' |
  while read -r log offset size limit; do
    length=$((size - offset)); [ $length -le $limit ] || length=$limit
    echo "$log $offset $length"
    tail -c +$((offset + 1)) "$log" | head -c $length
  done
"""


def parse_read(out: bytes) -> list[Chunk]:
    """Reads what the script of :func:`read` has printed.

    Raises:
        BackendUnavailable: It is cut off.
    """
    chunks = []
    position = 0
    while position < len(out):
        end = out.find(b"\n", position)
        try:
            name, offset, length = out[position:end].split()
            key, size = name.decode().removesuffix("/log"), int(length)
            chunk = Chunk(key, int(offset), out[end + 1 : end + 1 + size])
        except ValueError as error:
            raise BackendUnavailable(f"the host's answer cannot be read: {out[position : position + 80]!r}") from error
        if len(chunk.data) < size:
            raise BackendUnavailable(f"the log of {key} arrived incomplete: {len(chunk.data)} of {size} bytes")
        chunks.append(chunk)
        position = end + 1 + size
    return chunks


def ends(root: str, keys: Iterable[str]) -> str:
    """Returns a script that prints the end marks of those jobs that have one, each behind its key."""
    return _each(root, keys, "end.json")


def read_jobs(root: str, keys: Iterable[str]) -> str:
    """Returns a script that prints what was submitted of each job, behind its key."""
    return _each(root, keys, "job.json")


def _each(root: str, keys: Iterable[str], name: str) -> str:
    return f"""{enter(root)}
cd jobs || exit 21
for key in {" ".join(keys)}; do
  if [ -f "$key/{name}" ]; then printf '%s ' "$key"; cat "$key/{name}"; echo; fi
done
"""


def mark_cancelled(keys: Iterable[str]) -> str:
    """Returns lines, for a script that is in the root, that tell the runners not to start, and delete their secrets."""
    mark = f": >jobs/$key/cancel; rm -f jobs/$key/{secret_env.FILE}"
    return f"for key in {' '.join(keys)}; do [ ! -d jobs/$key ] || {{ {mark}; }}; done"


def marked_cancelled(root: str, keys: Iterable[str]) -> str:
    """Returns a script that prints the keys of those jobs that were marked so."""
    return f"{enter(root)}\nfor key in {' '.join(keys)}; do [ ! -e jobs/$key/cancel ] || echo $key; done"


def remove(root: str, keys: Iterable[str]) -> str:
    """Returns a script that deletes the folders of jobs."""
    return f"{enter(root)}\nfor key in {' '.join(keys)}; do rm -rf jobs/$key; done"


def list_old(root: str, minutes: int) -> str:
    """Returns a script that prints ``job KEY`` for each job, and ``young KEY`` for those written to since then."""
    return f"""{enter(root)}
cd jobs 2>/dev/null || exit 0
find . -mindepth 2 -maxdepth 2 -name job.json -type f -printf 'job %h\\n'
find . -mindepth 1 -maxdepth 2 -mmin -{minutes} -printf 'young %p\\n' | cut -d/ -f1,2
"""


def measure(root: str) -> str:
    """Returns a script that prints the kilobytes of the root, unless they take long to count."""
    return f"{enter(root)}\nprintf 'used %s\\n' \"$(timeout 90 du -sk . 2>/dev/null | cut -f1)\""


def parse_used(text: str) -> int | None:
    """Reads what the script of :func:`measure` has printed: returns bytes; 0 where there is no root yet."""
    if not text.strip():
        return 0
    word, _, number = text.strip().partition(" ")
    return int(number) * 1024 if word == "used" and number.isdecimal() else None


def parse_old(text: str) -> list[str]:
    """Reads what the script of :func:`list_old` has printed: returns the keys of jobs that are not young."""
    found: dict[str, set[str]] = {"job": set(), "young": set()}
    for line in text.splitlines():
        word, _, path = line.partition(" ./")
        if word in found:
            found[word].add(path)
    return sorted(key for key in found["job"] - found["young"] if _KEY.fullmatch(key))


def list_expired(root: str) -> str:
    """Returns a script that prints the keys of jobs whose folder was last written to longer ago than their ``ttl``."""
    return f"""{enter(root)}
cd jobs 2>/dev/null || exit 0
{{
  for file in */{TTL}; do
    [ -f "$file" ] && read -r ttl <"$file" && echo "ttl $ttl ${{file%/*}}"
  done
  find . -mindepth 1 -maxdepth 2 -printf 'at %T@ %P\\n'
}} | awk -v now="$(date +%s)" '
  $1 == "ttl" {{ ttl[$3] = $2 + 0; next }}
  {{ split($3, path, "/"); if ($2 > at[path[1]]) at[path[1]] = $2 + 0 }}
  END {{ for (key in ttl) if (now - at[key] > ttl[key]) print key }}'
"""


def parse_expired(text: str) -> list[str]:
    """Reads what the script of :func:`list_expired` has printed."""
    return [key for key in text.split() if _KEY.fullmatch(key)]


def sweep_shared(root: str) -> str:
    """Returns a script that deletes packages, runners and marks that no job's folder needs and no job used lately."""
    old, old_access = (f"-{time}time +{_SHARED_DAYS - 1}" for time in "ma")
    return f"""{enter(root)}
# What a job's folder has is one file with two names.
[ ! -d packages ] || find packages -mindepth 1 -maxdepth 1 -type f -links 1 {old} {old_access} -exec rm -f {{}} +
[ ! -d zstd ] || find zstd -mindepth 1 -maxdepth 1 -type f {old} -exec rm -f {{}} +
[ -d runner ] || exit 0
find runner -mindepth 1 -maxdepth 1 -type d {old} | while read -r folder; do
  [ -n "$(find jobs -mindepth 2 -maxdepth 2 -type f -name '*.sh' -exec grep -lsF "$folder/" {{}} + | head -n 1)" ] ||
    rm -rf "$folder"
done
true
"""


def discard(root: str, key: str) -> str:
    """Returns a script that deletes a job's folder that could not be laid out, unless the job was started before."""
    begun = " || ".join(f"[ -e jobs/{key}/{name} ]" for name in ("submitting", "jobid", "claim"))
    return f"{enter(root)}\n{begun} || rm -rf jobs/{key}"


def _command(*lines: str) -> str:
    # The login shell may be any: what it gets is one call of a POSIX shell.
    return f"exec sh -c {shlex.quote(chr(10).join(lines))}"
