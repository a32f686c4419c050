"""A small Hugging Face Hub on loopback: it holds one file and can break in the middle of it, or
takes what is pushed and gives it back."""

import base64
import hashlib
import http.server
import json
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
        """By the rules of git LFS, as the Hub's own."""
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


class Shelf(Hub):
    """Takes commits to USER/NAME, of a user whose token is `TOKEN`, and serves them.

    Attributes:
      made: bodies of requests for repositories.
      files: {path: content} of the last commit.
    """

    TOKEN = "hf_loopback"

    def __init__(self):
        super().__init__(b"")
        self.made, self.files, self.large = [], {}, {}
        self.server.RequestHandlerClass = type("Handler", (_ShelfHandler,), {"hub": self})


class _ShelfHandler(_Handler):
    hub: Shelf

    def do_HEAD(self):
        self._file(body=False)

    def do_GET(self):
        self._file(body=True)

    def do_PUT(self):
        self.hub.large[self.path.rsplit("/", 1)[-1]] = self._body()
        self._answer(200, {})

    def do_POST(self):
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {self.hub.TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            self.hub.made.append(json.loads(body))
            self._answer(200, {"url": f"{self.hub.address}/user/birds", "name": "user/birds"})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": one["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if one["path"].endswith(".fgjax") else "regular"}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            self._answer(200, {"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.address}/put/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer(200, {"objects": objects, "transfer": "basic"})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.hub.files[value["path"]] = self.hub.large[value["oid"]]
            self._answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": self.path})
        else:
            self._answer(404, {"error": self.path})

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, code, value):
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _file(self, *, body):
        data = self.hub.files.get(self.path.rpartition("/resolve/main/")[2])
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.send_header("ETag", f'"{hashlib.sha256(data or b"").hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data or b"")
