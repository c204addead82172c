"""A server behind TLS whose certificate comes from an authority of one's own, as in a company's network."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nemo_airflow.exceptions import ExecutorError, SettingsError, TrackingError
from nemo_airflow.executors.ray.address import Endpoint
from nemo_airflow.executors.ray.api import RayApi
from nemo_airflow.tracking.mlflow.address import resolve
from nemo_airflow.tracking.mlflow.store import open_store

VARIABLES = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class Authority:
    """Issues certificates, as PEM files with their key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Company authority")])
        self.file = folder / "authority.pem"
        own = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = self._sign(subject, key, address)
        pem = serialization.Encoding.PEM
        form = serialization.PrivateFormat.PKCS8
        file = self._folder / f"{name}.pem"
        file.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, form, serialization.NoEncryption()))
        return file

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: Any) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class Page(BaseHTTPRequestHandler):
    """Answers what both MLflow and Ray are asked for here."""

    def do_GET(self) -> None:
        body = json.dumps({"experiment": {"experiment_id": "7"}, "type": "SUBMISSION"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(params=[False], ids=["server-certificate"])
def server(request: pytest.FixtureRequest, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server behind TLS, which wants a client's certificate where the parameter is true."""
    for name in (*VARIABLES, "MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("server"))
    if request.param:
        context.load_verify_locations(authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
    http = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


def ask_mlflow(uri: str) -> str | None:
    return open_store(*resolve(uri, None)).experiment("any")


@pytest.mark.parametrize("variable", VARIABLES)
def test_mlflow_is_reached_with_the_authority_that_a_variable_names(
    variable: str, server: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(authority.file))
    assert ask_mlflow(server) == "7"


def test_a_connection_without_an_authority_of_its_own_takes_that_of_the_environment(
    server: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    monkeypatch.setenv("AIRFLOW_CONN_BEHIND_TLS", json.dumps({"conn_type": "mlflow", "host": server}))
    assert open_store(*resolve(server, "behind_tls")).experiment("any") == "7"


def test_a_certificate_of_an_unknown_authority_is_a_permanent_error_that_names_what_to_set(server: str) -> None:
    with pytest.raises(TrackingError, match=r"certificate is not trusted .*: set MLFLOW_TRACKING_SERVER") as raised:
        ask_mlflow(server)
    assert not raised.value.transient
    assert "REQUESTS_CA_BUNDLE" in str(raised.value)


def test_a_file_of_authorities_that_is_missing_is_named_with_its_variable(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    with pytest.raises(
        SettingsError, match=r"REQUESTS_CA_BUNDLE is '.*gone\.pem', which is not a file of certificates"
    ):
        ask_mlflow(server)


@pytest.mark.parametrize("server", [True], indirect=True, ids=["client-certificate"])
def test_a_server_that_wants_a_certificate_gets_that_of_the_environment(
    server: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    with pytest.raises(TrackingError, match="set MLFLOW_TRACKING_CLIENT_CERT_PATH") as raised:
        ask_mlflow(server)
    assert not raised.value.transient
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(authority.issue("client")))
    assert ask_mlflow(server) == "7"


@pytest.mark.parametrize("variable", VARIABLES[1:])
async def test_ray_is_reached_with_the_authority_that_a_variable_names(
    variable: str, server: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = RayApi(Endpoint(server))
    with pytest.raises(ExecutorError, match=r"certificate is not trusted .*: set REQUESTS_CA_BUNDLE"):
        await unknown.job("any")
    await unknown.close()
    monkeypatch.setenv(variable, str(authority.file))
    known = RayApi(Endpoint(server))
    assert await known.job("any") == {"experiment": {"experiment_id": "7"}, "type": "SUBMISSION"}
    await known.close()
