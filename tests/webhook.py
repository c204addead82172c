"""A webhook on this machine that notifications are sent to."""

import contextlib
import http.server
import json
import threading


@contextlib.contextmanager
def open_webhook():
    """Yields its address, and the list of what is sent to it; an address with "refused" in it refuses all."""
    taken = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(503 if "refused" in self.path else 200)
            self.end_headers()

        def log_message(self, *arguments):
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        server.server_close()
