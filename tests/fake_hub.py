"""A small Hugging Face Hub on loopback that holds one file, and can break in the middle of it."""

import hashlib
import http.server
import re
import threading

COMMIT = "0" * 40


class Hub:
    """Serves `data` as REPOSITORY's model.safetensors.

    Attributes:
      data: what is sent.
      claimed: the SHA-256 that is announced; that of `data` unless set.
      break_at: bytes after which the connection is cut, once for each entry.
      ranges: the Range header of every GET.
    """

    def __init__(self, data):
        self.data, self.claimed = data, hashlib.sha256(data).hexdigest()
        self.break_at, self.ranges = [], []
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._head(0)

    def do_GET(self):
        self.hub.ranges.append(self.headers.get("Range"))
        match = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(match[1]) if match else 0
        self._head(start)
        body = self.hub.data[start:]
        if self.hub.break_at:
            self.wfile.write(body[: self.hub.break_at.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(body)

    def _head(self, start):
        known = self.path.endswith("/resolve/main/model.safetensors")
        self.send_response((206 if start else 200) if known else 404)
        size = len(self.hub.data)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start if known else 0))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{self.hub.claimed}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()

    def log_message(self, *_):
        pass
