"""A folder served on 127.0.0.1 as Google Cloud Storage serves buckets, as far as reading goes."""

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

# https://cloud.google.com/storage/docs/json_api/v1: objects.get and objects.list.
_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o(?:/(.+))?")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        match = _OBJECT.fullmatch(url.path)
        if match is None:
            self._send(404, b"{}")
        elif match[2] is None:
            self._send(200, json.dumps(self._listing(match[1], query)).encode())
        elif not (self.root / match[1] / unquote(match[2])).is_file():
            self._send(404, b"{}")
        elif query.get("alt") == "media":
            self._send_content((self.root / match[1] / unquote(match[2])).read_bytes())
        else:
            self._send(200, json.dumps(self._metadata(match[1], unquote(match[2]))).encode())

    def log_message(self, *_: object) -> None:
        pass

    def _metadata(self, bucket: str, name: str) -> dict[str, str]:
        size = (self.root / bucket / name).stat().st_size
        return {"bucket": bucket, "name": name, "size": str(size), "generation": "1"}

    def _listing(self, bucket: str, query: dict[str, str]) -> dict[str, list]:
        names = [
            file.relative_to(self.root / bucket).as_posix()
            for file in sorted((self.root / bucket).rglob("*"))
            if file.is_file()
        ]
        found = [name for name in names if name.startswith(query.get("prefix", ""))]
        return {"items": [self._metadata(bucket, name) for name in found], "prefixes": []}

    def _send_content(self, content: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(200, content)
            return
        size = len(content)
        start = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        stop = min(size, int(asked[2]) + 1) if asked[1] and asked[2] else size
        span = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        self._send(206, content[start:stop], span)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        # A reader that has seen enough hangs up.
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content)


@contextlib.contextmanager
def bucket_server(root: Path) -> Iterator[str]:
    """Serves each folder below `root` as a bucket; gives the server's address."""
    handler = type("Handler", (_Handler,), {"root": root})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
