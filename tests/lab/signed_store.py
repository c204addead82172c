"""An S3 server that checks signed forms and addresses as Amazon's documentation of POST policies and Signature 4 says.

moto keeps the objects; it checks neither itself, so that is done here, in front of it.
"""

import base64
import contextlib
import datetime
import hashlib
import hmac
import io
import json
import socket
import threading
from urllib.parse import quote

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

KEY, SECRET, REGION = "access-key", "hidden-secret-key", "us-east-1"


class RefusedError(Exception):
    """A form that is refused: the error's code and message."""


class SignedStore:
    """The server, on a port of its own.

    Attributes:
        url: Its address.
        posts: Key, size and status of each form that came.
        reads: Key and size of each object that was read.
        fetches: The same of what was read at a signed address.
        signatures: Those of the forms that came.
        damage: Whether each piece is stored with another content, by a store that has no checksums.
        cut_at: Bytes of forms after which the connection is closed once, in the midst; None for never.
        cut_fetch: Number of the read at a signed address that is cut off in its midst; None for none.
    """

    def __init__(self):
        self.forget()
        self._lock = threading.Lock()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._servers = {}
        self.url = self.listen("127.0.0.1")

    def listen(self, host):
        """Serves at another address of this machine, too, such as that of a network of containers; returns the URL."""
        if host not in self._servers:
            server = make_server(host, 0, self._answer, threaded=True, request_handler=QuietHandler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self._servers[host] = server
        return f"http://{host}:{self._servers[host].server_port}"

    def forget(self):
        """Begins anew."""
        self.posts, self.reads, self.fetches, self.signatures = [], [], [], set()
        self.cut_at, self.cut_fetch, self.seen, self.damage = None, None, 0, False

    @property
    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    @property
    def connection(self):
        """The Airflow connection, as JSON."""
        extra = {"endpoint_url": self.url, "region_name": REGION}
        return json.dumps({"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra})

    def list_keys(self, prefix="", bucket="bucket"):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def stop(self):
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def _answer(self, environ, start_response):
        if "X-Amz-Signature" in environ.get("QUERY_STRING", ""):
            return self._let_fetch(environ, start_response)
        if not environ.get("CONTENT_TYPE", "").startswith("multipart/form-data"):
            return self._pass_on(environ, start_response)
        size = int(environ["CONTENT_LENGTH"])
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
        bucket, content = form.path.strip("/"), form.files["file"].read()
        try:
            _check(bucket, form.form, content)
        except RefusedError as error:
            self.posts.append((form.form.get("key", ""), len(content), 403))
            text = f"<Error><Code>{error.args[0]}</Code><Message>{error.args[1]}</Message></Error>"
            status = 400 if error.args[0] == "BadDigest" else 403
            return Response(text, status, content_type="application/xml")(environ, start_response)
        self.signatures.add(form.form["x-amz-signature"])
        if self.damage and not form.form["key"].endswith(".json"):
            self.client.put_object(Bucket=bucket, Key=form.form["key"], Body=content[:-1] + b"?")
        else:
            self.client.put_object(Bucket=bucket, Key=form.form["key"], Body=content, ChecksumAlgorithm="SHA256")
        self.posts.append((form.form["key"], len(content), 204))
        return Response(status=204)(environ, start_response)

    def _let_fetch(self, environ, start_response):
        try:
            self.signatures.add(_check_address(Request(environ)))
        except RefusedError as error:
            text = f"<Error><Code>{error.args[0]}</Code><Message>{error.args[1]}</Message></Error>"
            return Response(text, 403, content_type="application/xml")(environ, start_response)
        content = b"".join(self._moto(environ, start_response))
        with self._lock:
            self.fetches.append((environ["PATH_INFO"], len(content)))
            is_cut = len(self.fetches) == self.cut_fetch
        if is_cut:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError
        return [content]

    def _pass_on(self, environ, start_response):
        def start(status, headers, *rest):
            if environ["REQUEST_METHOD"] == "GET" and status.startswith("20"):
                self.reads.append((environ["PATH_INFO"], int(dict(headers).get("Content-Length") or 0)))
            return start_response(status, headers, *rest)

        return self._moto(environ, start)


def _key_of(credential):
    key = f"AWS4{SECRET}".encode()
    for part in credential.split("/")[1:]:
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _check_address(request):
    query = dict(request.args)
    signature, at = query.pop("X-Amz-Signature"), query["X-Amz-Date"]
    spelled = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
    lines = ["GET", quote(request.path), spelled, f"host:{request.host}", "", "host", "UNSIGNED-PAYLOAD"]
    scope = query["X-Amz-Credential"].partition("/")[2]
    text = "\n".join(["AWS4-HMAC-SHA256", at, scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()])
    if hmac.digest(_key_of(query["X-Amz-Credential"]), text.encode(), "sha256").hex() != signature:
        raise RefusedError("SignatureDoesNotMatch", "The request signature does not match")
    signed = datetime.datetime.strptime(at, "%Y%m%dT%H%M%S%z")
    if signed + datetime.timedelta(seconds=int(query["X-Amz-Expires"])) < datetime.datetime.now(datetime.UTC):
        raise RefusedError("AccessDenied", "Request has expired")
    return signature


def _check(bucket, form, content):
    key = _key_of(form["x-amz-credential"])
    if not hmac.compare_digest(hmac.digest(key, form["policy"].encode(), "sha256").hex(), form["x-amz-signature"]):
        raise RefusedError("SignatureDoesNotMatch", "The request signature does not match")
    check_conditions(json.loads(base64.b64decode(form["policy"])), bucket, form, content, "x-amz-signature")
    if form["x-amz-checksum-sha256"] != base64.b64encode(hashlib.sha256(content).digest()).decode():
        raise RefusedError("BadDigest", "The SHA256 you specified did not match the calculated checksum.")


def check_conditions(policy, bucket, form, content, signature):
    """Checks a form against its policy, whose signature in the field of that name is right.

    Raises:
        RefusedError: It does not meet a condition, or has a field that no condition names.
    """
    if datetime.datetime.fromisoformat(policy["expiration"]) < datetime.datetime.now(datetime.UTC):
        raise RefusedError("AccessDenied", "Invalid according to Policy: Policy expired.")
    fields, named = {**form, "bucket": bucket}, {"policy", signature}
    for condition in policy["conditions"]:
        kind, name, value = ("eq", *next(iter(condition.items()))) if isinstance(condition, dict) else condition
        if kind == "content-length-range":
            met = name <= len(content) <= value
        else:
            name = name.removeprefix("$")
            named.add(name)
            given = fields.get(name, "")
            met = given.startswith(value) if kind == "starts-with" else given == value
        if not met:
            raise RefusedError("AccessDenied", f"Invalid according to Policy: Policy Condition failed: {condition}")
    if extra := set(form) - named:
        raise RefusedError("AccessDenied", f"Invalid according to Policy: Extra input fields: {sorted(extra)}")


class QuietHandler(WSGIRequestHandler):
    """Keeps connections open, and says nothing of those that are cut."""

    protocol_version = "HTTP/1.1"

    def log(self, *_):
        return

    def handle(self):
        with contextlib.suppress(ConnectionError, ValueError, OSError):
            super().handle()


@contextlib.contextmanager
def signed_store():
    """Runs the server with an empty bucket, ``bucket``."""
    store = SignedStore()
    store.client.create_bucket(Bucket="bucket")
    try:
        yield store
    finally:
        store.stop()
