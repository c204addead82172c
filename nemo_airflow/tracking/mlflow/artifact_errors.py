"""Distinguishes transient errors of artifact stores from permanent ones.

Each kind of artifact store (folder, S3, Google Cloud Storage, Azure, HDFS ...) raises the errors of
its own client library, none of which is imported here: an error is judged by its number, its HTTP
status, or the name of its class, and so is its cause.
"""

from __future__ import annotations

import errno
import re
import ssl
from collections.abc import Iterator

from nemo_airflow.exceptions import MissingExtraError, TrackingError

_NUMBERS = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.EROFS,
        errno.ELOOP,
        errno.EINVAL,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
    }
)
_TRANSIENT_STATUS = frozenset({408, 425, 429})
_NO_LIBRARY = re.compile("unable to load|attempt to load", re.IGNORECASE)
"""Messages of pyarrow (without a number) for a missing library of HDFS or Java, the first time and later."""

_CLASSES = frozenset(
    {
        # botocore
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "NoRegionError",
        "InvalidConfigError",
        "ParamValidationError",
        "UnauthorizedSSOTokenError",
        # google.auth
        "DefaultCredentialsError",
        # azure.core
        "ClientAuthenticationError",
    }
)


def is_permanent(error: BaseException) -> bool:
    """Returns whether a retry of the same call would fail again."""
    return any(_is_permanent(cause) for cause in _causes(error))


def describe(error: BaseException) -> str:
    """Returns the error in one line, with its class where the text alone is not informative."""
    text = " ".join(str(error).split())[:500]
    return text if len(text.split()) > 2 else f"{type(error).__name__}: {text}".rstrip(": ")


def code_of(error: BaseException) -> str:
    """Returns a short name of the kind of error, the same for all files that are refused for one reason."""
    cause = next((cause for cause in _causes(error) if _is_permanent(cause)), error)
    detail = http_status(cause) or (cause.errno if isinstance(cause, OSError) else None)
    return f"{type(cause).__name__} {detail or ''}".strip()


def http_status(error: BaseException) -> int | None:
    """Returns the HTTP status of a client library's error, if any."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        candidates = [response.get("ResponseMetadata", {}).get("HTTPStatusCode")]
    else:  # requests and httpx; azure; google.api_core
        candidates = [getattr(response, "status_code", None), getattr(error, "status_code", None)]
        candidates.append(getattr(error, "code", None))
    return next((int(status) for status in candidates if isinstance(status, int) and status >= 400), None)


def _is_permanent(error: BaseException) -> bool:
    if isinstance(error, (ImportError, MissingExtraError, ssl.SSLCertVerificationError)):
        return True
    if isinstance(error, TrackingError):
        return not error.transient
    if type(error).__name__ in _CLASSES:
        return True
    status = http_status(error)
    if status is not None:
        return status < 500 and status not in _TRANSIENT_STATUS
    if isinstance(error, OSError):
        return error.errno in _NUMBERS or (error.errno is None and bool(_NO_LIBRARY.search(str(error))))
    return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
