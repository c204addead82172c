"""Tells errors of artifact stores that another try may mend from those that stay.

Each kind of artifact store (folder, S3, Google Cloud Storage, Azure, HDFS ...) raises the errors of
its own client library, none of which is imported here: an error is judged by its number, its HTTP
status, or the name of its class, and so is what it was raised from.
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
    }
)
_TRANSIENT_STATUS = frozenset({408, 425, 429})
_NO_LIBRARY = re.compile("unable to load|attempt to load", re.IGNORECASE)
"""How pyarrow says, without a number, that the library of HDFS or of Java is missing: the first and each later time."""

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
    """Whether the same call would fail again, whenever it is made."""
    return any(_is_permanent(cause) for cause in _causes(error))


def describe(error: BaseException) -> str:
    """Returns the error in one line, which says its class where the text alone would say little."""
    text = " ".join(str(error).split())[:500]
    return text if len(text.split()) > 2 else f"{type(error).__name__}: {text}".rstrip(": ")


def code_of(error: BaseException) -> str:
    """Returns a short name of the kind of error, the same for each file that a store refuses for the same reason."""
    cause = next((cause for cause in _causes(error) if _is_permanent(cause)), error)
    detail = http_status(cause) or (cause.errno if isinstance(cause, OSError) else None)
    return f"{type(cause).__name__} {detail or ''}".strip()


def http_status(error: BaseException) -> int | None:
    """Returns the HTTP status that an error of a client library carries, if any."""
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
