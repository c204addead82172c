"""A server of Google Cloud Storage that checks signed forms as Google's documentation of policy documents says.

gcp-storage-emulator keeps the objects; it knows no such forms, so they are checked here, in front of it.
"""

import base64
import contextlib
import datetime
import io
import json
import threading

import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from gcp_storage_emulator.server import create_server
from lab.signed_store import QuietHandler, RefusedError, check_conditions
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

EMAIL = "jobs@lab.example"


class SignedGoogle:
    """The server, on a port of its own.

    Attributes:
        url: Its address.
        posts: Key, size and status of each form that came.
        seen: Bytes of forms that came.
        cut_at: Bytes of forms after which the connection is closed once, in the midst; None for never.
    """

    def __init__(self):
        self.forget()
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._lock = threading.Lock()
        self._emulator = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
        self._emulator.start()
        self._behind = f"http://127.0.0.1:{self._emulator._api._httpd.server_port}"
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=QuietHandler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def forget(self):
        """Begins anew."""
        self.posts, self.seen, self.cut_at = [], 0, None

    @property
    def connection(self):
        """The Airflow connection, as JSON, with the key of a service account."""
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        account = {
            "type": "service_account", "project_id": "lab", "private_key_id": "1", "private_key": pem,
            "client_id": "1", "client_email": EMAIL, "token_uri": f"{self.url}/token",
        }  # fmt: skip
        extra = {"keyfile_dict": account, "project": "lab", "endpoint_url": self.url}
        return json.dumps({"conn_type": "google_cloud_platform", "extra": extra})

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._emulator.stop()

    def _answer(self, environ, start_response):
        if environ["PATH_INFO"] == "/token":
            token = {"access_token": "token", "expires_in": 3600, "token_type": "Bearer"}
            return Response(json.dumps(token), content_type="application/json")(environ, start_response)
        size = int(environ.get("CONTENT_LENGTH") or 0)
        if not environ.get("CONTENT_TYPE", "").startswith("multipart/form-data"):
            return self._pass_on(environ, environ["wsgi.input"].read(size))(environ, start_response)
        with self._lock:
            self.seen += size
            is_cut = self.cut_at is not None and self.seen >= self.cut_at
            if is_cut:
                self.cut_at = None
        if is_cut:
            environ["wsgi.input"].read(size // 2)
            environ["werkzeug.socket"].close()
            raise ConnectionResetError
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(size))
        form = Request(environ)
        content, bucket = form.files["file"].read(), form.path.strip("/")
        status, text = 204, ""
        try:
            self._check(bucket, form.form, content)
            made = requests.post(
                f"{self._behind}/upload/storage/v1/b/{bucket}/o",
                params={"uploadType": "media", "name": form.form["key"]},
                data=content,
                headers={"Content-Type": "application/octet-stream"},
                timeout=300,
            )
            made.raise_for_status()
        except RefusedError as error:
            status = 403
            text = f"<Error><Code>{error.args[0]}</Code><Message>{error.args[1]}</Message></Error>"
        self.posts.append((form.form.get("key", ""), len(content), status))
        return Response(text, status, content_type="application/xml")(environ, start_response)

    def _check(self, bucket, form, content):
        policy = form["policy"].encode()
        try:
            signature = bytes.fromhex(form["x-goog-signature"])
            self._key.public_key().verify(signature, policy, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise RefusedError("SignatureDoesNotMatch", "Access denied.") from None
        date = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d")
        assert form["x-goog-algorithm"] == "GOOG4-RSA-SHA256"
        assert form["x-goog-credential"] == f"{EMAIL}/{date}/auto/storage/goog4_request"
        check_conditions(json.loads(base64.b64decode(policy)), bucket, form, content, "x-goog-signature")

    def _pass_on(self, environ, body):
        """Returns the answer of the server behind; the path is passed on as it came, with its quotes."""
        headers = {
            name: environ[f"HTTP_{name.upper().replace('-', '_')}"]
            for name in ("Range", "X-Upload-Content-Type")
            if f"HTTP_{name.upper().replace('-', '_')}" in environ
        }
        if environ.get("CONTENT_TYPE"):
            headers["Content-Type"] = environ["CONTENT_TYPE"]
        url = self._behind + environ["REQUEST_URI"]
        answer = requests.request(environ["REQUEST_METHOD"], url, data=body, headers=headers, timeout=300)
        kept = {name: value for name, value in answer.headers.items() if name in ("Content-Type", "Content-Range")}
        return Response(answer.content, answer.status_code, kept)


@contextlib.contextmanager
def signed_google():
    """Runs the server with an empty bucket, ``bucket``."""
    server = SignedGoogle()
    try:
        yield server
    finally:
        server.stop()
