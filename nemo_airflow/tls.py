"""Checks certificates of HTTPS servers for the clients of MLflow and Ray, and explains failures."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from nemo_airflow.exceptions import SettingsError

_AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that name a company's authority; httpx itself reads only the last one."""

_WANTS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "ALERT_BAD_CERTIFICATE", "ALERT_UNKNOWN_CA", "HANDSHAKE_FAILURE")


def client_context(verify: bool | str, certificate: str = "") -> ssl.SSLContext:
    """Returns the TLS context of a client, with its trusted authorities and its own certificate.

    Args:
        verify: False for no check; a file or a folder of authorities; True for those of ``$REQUESTS_CA_BUNDLE``,
            ``$CURL_CA_BUNDLE`` or ``$SSL_CERT_FILE``, else the usual ones.
        certificate: PEM file with the client's own certificate and key, or empty.

    Raises:
        SettingsError: A file is missing, or does not contain certificates.
    """
    import httpx

    where = ""
    if verify is True:
        where = next((name for name in _AUTHORITIES if os.environ.get(name)), "")
        verify = os.environ[where] if where else True
    try:
        if isinstance(verify, str):
            given = {"capath": verify} if Path(verify).is_dir() else {"cafile": verify}
            context = ssl.create_default_context(**given)  # type: ignore[arg-type]
        else:
            context = httpx.create_ssl_context(verify=verify)
    except OSError as error:  # ssl's errors are of this class too
        raise SettingsError(
            f"{where or 'the authority to trust'} is {str(verify)!r}, which is not a file of certificates: {error}"
        ) from error
    if certificate:
        try:
            context.load_cert_chain(certificate)
        except OSError as error:
            raise SettingsError(
                f"the client certificate {certificate!r} is not a PEM file with a certificate and its key: {error}"
            ) from error
    return context


def certificate_problem(error: BaseException, verify_setting: str, certificate_setting: str) -> str:
    """Returns the certificate problem behind a failed request and the setting to change; else an empty text.

    Args:
        error: The client's error.
        verify_setting: Name of the setting for an authority's file, for people.
        certificate_setting: Name of the setting for the client's own certificate, for people.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message}): set {verify_setting}"
        if isinstance(cause, ssl.SSLError) and any(part in (cause.reason or "") for part in _WANTS_CERTIFICATE):
            return f"it does not accept the client's certificate ({cause.reason}): set {certificate_setting}"
        cause = cause.__cause__ or cause.__context__
    return ""
