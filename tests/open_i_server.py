"""A web server for tests: it serves files with ranges and ETags, and answers badly when told to.

`archive_of(studies)` makes an archive in the layout of Open-i's NLMCXR_png.tgz from rendered phantoms, and
`open_i(studies)` serves it together with the reports. For a dress rehearsal without the internet:

    python tests/open_i_server.py    # then, in another shell: cmlr download iu-rr --from http://127.0.0.1:8000
"""

from __future__ import annotations

import hashlib
import io
import socket
import struct
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from cmlr_utils.data.phantom import render_phantom
from cmlr_utils.data.reports import Study, read_reports, torchxrayvision_file


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):  # noqa: N802 the library's name
        server: Server = self.server
        server.requests.append(dict(self.headers))
        answer = server.answers.pop(0) if server.answers else serve
        try:
            answer(self)
        except OSError:  # the client hung up
            self.close_connection = True

    def head(self, status: int, **headers: object):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def body(self, content: bytes):
        self.server.sent += len(content)  # before, as the client may be done, and the test ask, while this is writing
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """`files` are served; each request takes the next of `answers`, or is answered well if none is left."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], answers: Sequence[Callable[[Handler], None]] = (), port: int = 0):
        super().__init__(("127.0.0.1", port), Handler)
        self.files, self.answers = files, list(answers)
        self.requests: list[dict[str, str]] = []
        self.sent = 0
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(files: dict[str, bytes], *answers: Callable[[Handler], None]) -> Iterator[Server]:
    with Server(files, answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def etag_of(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def serve(handler: Handler, cut: int | None = None, reset: bool = False, ranges: bool = True, **headers: object):
    """A whole file, or from where the request's Range says; `cut` ends the connection after so many bytes."""
    content = handler.server.files.get(handler.path)
    if content is None:
        return handler.head(404, Content_Length=0)
    wanted, condition, start = handler.headers.get("Range"), handler.headers.get("If-Range"), 0
    if ranges and wanted and condition in (None, etag_of(content)):
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            return handler.head(416, Content_Length=0, Content_Range=f"bytes */{len(content)}")
        headers = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} | headers
    handler.head(206 if start else 200, **{"Content_Length": len(content) - start, "ETag": etag_of(content)} | headers)
    handler.body(content[start:][:cut])
    if cut is not None:
        handler.close_connection = True
        if reset:
            handler.wfile.flush()
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()


def png(film: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(film).convert("RGB").save(buffer, "PNG")  # Open-i's are RGB
    return buffer.getvalue()


def tgz(members: Iterable[tuple[tarfile.TarInfo | str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = info.size or len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def archive_of(studies: Iterable[Study], size: int = 64) -> bytes:
    """An archive as Open-i's NLMCXR_png.tgz: `./CXR*.png`, RGB, frontal and lateral films, and a stray Thumbs.db.

    Frontal films are phantoms, the others black.
    """
    members = [("./Thumbs.db", b"\0" * 60_416)]
    for study in studies:
        for image, view in zip(study.images, study.views, strict=True):
            film = np.zeros((size, size), np.uint8)
            if view == "frontal":
                film = render_phantom(study.id, study.mesh, size).pixels
            members.append((f"./{image}.png", png(film)))
    return tgz(members)


def open_i(studies: Iterable[Study]) -> dict[str, bytes]:
    """The files of a server that looks like Open-i's, by path."""
    reports = torchxrayvision_file("NLMCXR_reports.tgz").read_bytes()
    return {"/NLMCXR_reports.tgz": reports, "/NLMCXR_png.tgz": archive_of(studies)}


if __name__ == "__main__":
    with Server(open_i(read_reports()[:40]), port=8000) as rehearsal:
        print(f"cmlr download iu-rr --from {rehearsal.url}")
        rehearsal.serve_forever()
