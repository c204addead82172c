"""Replaces a job's secrets in everything that it writes and reports, before it leaves the runner.

Airflow knows its secrets only in the worker, where templates are rendered. So the worker marks the texts of
``job.json`` that are secrets, and only the runner has to know them. The values of secrets that are named, and not in
``job.json``, the runner knows as well (:mod:`nemo_airflow.runner.secret_env`).
"""

import json
import re
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from nemo_airflow.language.plan.grammar import is_reserved
from nemo_airflow.runner.stream_writer import StreamWriter

MASK = "***"

SHORTEST = 5
"""Characters of the shortest named secret that is masked, as for Airflow: a shorter one is in every other word."""

_SHORTEST_LINE = 8
"""Characters of the shortest line of a secret of several lines that is masked by itself."""

_OWN = ("start", "clock", "heartbeat", "sample")
"""Records without any user content."""


def map_texts(value: Any, change: Callable[[str], str], keys: bool = True) -> Any:
    """Returns a JSON value with its texts changed.

    Args:
        value: The value; it is not changed itself.
        change: Returns the replacement of a text.
        keys: Whether the keys of objects are changed too, and texts below any key. Not in a plan, where keys and the
            texts of its grammar determine what is built.
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, (list, tuple)):
        items = []
        for item in value:  # no comprehension: it would take a frame more for each level of a plan
            items.append(map_texts(item, change, keys))
        return items
    if isinstance(value, dict):
        fields = {}
        for key, item in value.items():
            kept = not keys and _is_grammar(key, item)
            fields[change(key) if keys and isinstance(key, str) else key] = (
                item if kept else map_texts(item, change, keys)
            )
        return fields
    return value


def _is_grammar(key: Any, item: Any) -> bool:
    return isinstance(item, str) and is_reserved(key) and key != "_path_"


class Masker:
    """Replaces the secrets of one job.

    Args:
        job: The job, from ``job.json``.
        values: Values of its named secrets.
    """

    def __init__(self, job: Dict[str, Any], values: Iterable[str] = ()) -> None:
        forms: Set[str] = set()
        for text in (*_secrets(job), *(part for value in values for part in _parts(value))):
            forms.update(_forms(text))
        # The longest first: one secret may be the beginning of another.
        found = sorted(forms, key=lambda text: (-len(text), text))
        self._texts = re.compile("|".join(map(re.escape, found)))
        self._secrets = [text.encode("utf-8", "surrogatepass") for text in found]
        self._bytes = re.compile(b"|".join(map(re.escape, self._secrets)))
        self._first = {secret[0] for secret in self._secrets}
        self._longest = max(map(len, self._secrets), default=0)
        self._held = b""

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def feed(self, data: bytes) -> bytes:
        """Returns the output that can be passed on; holds back a piece that may be the start of a secret."""
        buffer = self._held + data
        pieces: List[bytes] = []
        at, hold = 0, self._hold_from(buffer, 0)
        while True:
            match = self._bytes.search(buffer, at)
            if match is None or match.start() >= hold:
                pieces.append(buffer[at:hold])
                self._held = buffer[hold:]
                return b"".join(pieces)
            pieces += (buffer[at : match.start()], MASK.encode())
            at = match.end()
            if at > hold:
                hold = self._hold_from(buffer, at)

    def finish(self) -> bytes:
        """Returns the output that is still held back."""
        held, self._held = self._held, b""
        return self._bytes.sub(MASK.encode(), held)

    def fields(self, kind: str, fields: Optional[Dict[str, Any]]) -> Optional[Dict[str, Any]]:
        """Returns the fields of a record without secrets."""
        if not fields or kind in _OWN:
            return fields
        if kind == "end":  # the words for how a job ended may be someone's password
            return {**fields, **{name: self._value(fields.get(name)) for name in ("result", "error")}}
        return {name: self._value(value, keys=kind != "config") for name, value in fields.items()}

    def _value(self, value: Any, keys: bool = True) -> Any:
        try:
            return map_texts(value, lambda text: self._texts.sub(MASK, text), keys)
        except RecursionError:
            return MASK

    def _hold_from(self, buffer: bytes, at: int) -> int:
        """Returns where the buffer's longest end that begins a secret starts; the buffer's length if none does."""
        for start in range(max(at, len(buffer) - self._longest + 1), len(buffer)):
            if buffer[start] in self._first:
                end = buffer[start:]
                if any(len(secret) > len(end) and secret.startswith(end) for secret in self._secrets):
                    return start
        return len(buffer)


class MaskingWriter(StreamWriter):
    """A stream writer that replaces the secrets of its job.

    Args:
        masker: Replaces them.
        fd: File descriptor to write to.
        options: As for :class:`StreamWriter`.
    """

    def __init__(self, masker: Masker, fd: int, **options: Any) -> None:
        super().__init__(fd, **options)
        self._masker = masker

    def output(self, data: bytes) -> None:
        """Passes on output of the job."""
        super().output(self._masker.feed(data))

    def record(self, kind: str, fields: Optional[Dict[str, Any]] = None) -> None:
        """Writes a record."""
        super().record(kind, self._masker.fields(kind, fields))

    def finish(self, kind: str, fields: Dict[str, Any]) -> bytes:
        """Writes the held output and the last record, and returns its JSON."""
        super().output(self._masker.finish())
        return super().finish(kind, self._masker.fields(kind, fields) or {})


def open_writer(job: Dict[str, Any], values: Iterable[str], fd: int, **options: Any) -> StreamWriter:
    """Returns the writer of a job's stream, which masks its secrets; the options are those of :class:`StreamWriter`."""
    masker = Masker(job, values)
    return MaskingWriter(masker, fd, **options) if masker else StreamWriter(fd, **options)


def _secrets(job: Dict[str, Any]) -> Iterator[str]:
    for *path, start, end in job.get("secrets") or ():
        value: Any = job
        for key in path:
            value = value[key]
        if text := value[start:end]:
            yield text


def _parts(value: str) -> Iterator[str]:
    """Yields what is masked of a named secret: the value, and its lines, which a job may print one by one."""
    for text in (value, value.strip()):
        if len(text) >= SHORTEST:
            yield text
    lines = [line.strip() for line in value.splitlines()]
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= _SHORTEST_LINE)


def _forms(text: str) -> Tuple[str, ...]:
    """Returns the forms in which a secret is printed: itself, in Python's quotes, in JSON, in an address."""
    from urllib.parse import quote

    safe = text.encode("utf-8", "surrogatepass")
    return (text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1],
            quote(safe), quote(safe, safe=""))  # fmt: skip
