import fcntl
import hashlib
import http.server
import threading
import time

import numpy as np
import pytest

from eval.features import download
from sgflow_jax.interfaces import InputError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REMEDY = "give --weights"


class _Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT under any path; `ranges` records the Range header of each request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/weights"
        self.ranges = []
        self.content = CONTENT
        self.supports_range = True
        self.cut_after = None  # bytes of each answer
        self.statuses = []  # errors to answer first
        self.redirect = None


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        server.ranges.append(wanted)
        if server.redirect and self.path == "/weights":
            return self._head(302, {"Location": server.redirect, "Content-Length": "0"})
        if server.statuses:
            return self._head(server.statuses.pop(0), {"Content-Length": "0"})
        size, start = len(server.content), 0
        if wanted and server.supports_range:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= size:
                return self._head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            self._head(206, {"Content-Range": f"bytes {start}-{size - 1}/{size}", "Content-Length": str(size - start)})
        else:
            self._head(200, {"Content-Length": str(size)})
        body = server.content[start:]
        self.wfile.write(body[: server.cut_after])

    def _head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "*")
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "made" / "weights.pth"


def _part(target):
    return target.with_name("weights.pth.part")


def _begun(target, content):
    target.parent.mkdir()
    _part(target).write_bytes(content)


def _complete(target):
    return target.read_bytes() == CONTENT and list(target.parent.iterdir()) == [target]


def _refused(url, target, *matches):
    with pytest.raises(InputError) as caught:
        download.fetch(url, SHA256, target, REMEDY)
    assert "\n" not in str(caught.value)
    for match in matches:
        assert match in str(caught.value)


def test_downloads_once(server, target, capsys):
    assert download.fetch(server.url, SHA256, target, REMEDY) == target
    assert _complete(target)
    assert download.fetch(server.url, SHA256, target, REMEDY) == target
    assert server.ranges == [None]
    assert capsys.readouterr().err == ""  # no terminal, no progress bar


def test_resumes_within_a_call(server, target):
    server.cut_after = 120_000
    download.fetch(server.url, SHA256, target, REMEDY)
    assert _complete(target)
    assert server.ranges == [None, "bytes=120000-", "bytes=240000-"]


def test_resumes_in_the_next_call(server, target):
    server.cut_after = 60_000
    _refused(server.url, target, server.url, "ended after 180000 of 300000 bytes", REMEDY)
    assert not target.exists()
    assert _part(target).read_bytes() == CONTENT[:180_000]
    server.cut_after = None
    download.fetch(server.url, SHA256, target, REMEDY)
    assert _complete(target)
    assert server.ranges[-1] == "bytes=180000-"


@pytest.mark.parametrize("begun", [CONTENT[:1000], CONTENT, CONTENT + b"more"], ids=["part", "all", "too much"])
@pytest.mark.parametrize("supports_range", [True, False])
def test_goes_on_from_any_part(server, target, begun, supports_range):
    """416 answers a part that is not shorter than the file; 200 answers a Range that the server ignores."""
    _begun(target, begun)
    server.supports_range = supports_range
    download.fetch(server.url, SHA256, target, REMEDY)
    assert _complete(target)
    expected = [f"bytes={len(begun)}-"]
    if supports_range and len(begun) >= len(CONTENT):
        expected.append(None)
    assert server.ranges == expected


def test_wrong_content(server, target):
    server.content = b"x" * 1000
    _refused(server.url, target, server.url, SHA256, hashlib.sha256(server.content).hexdigest(), REMEDY)
    assert list(target.parent.iterdir()) == []
    _part(target).write_bytes(CONTENT[:500])
    _refused(server.url, target, SHA256)
    assert list(target.parent.iterdir()) == []


def test_wrong_target_is_kept(server, target):
    target.parent.mkdir()
    target.write_bytes(b"mine")
    _refused(server.url, target, str(target), SHA256, hashlib.sha256(b"mine").hexdigest(), "remove")
    assert target.read_bytes() == b"mine" and server.ranges == []


def test_server_errors(server, target):
    server.statuses = [503, 500]
    download.fetch(server.url, SHA256, target, REMEDY)
    assert _complete(target)


def test_missing_page_is_asked_for_once(server, target):
    server.statuses = [404] * 3
    _refused(server.url, target, server.url, "404", REMEDY)
    assert len(server.ranges) == 1


def test_no_server(server, target):
    url = server.url
    server.server_close()
    _refused(url, target, url, "refused", REMEDY)


@pytest.mark.parametrize(
    "url",
    ["http://example.org/w", "http://localhost.example.org/w", "ftp://127.0.0.1/w", "file:///w", "w", "https://[/w"],
)
def test_addresses(server, target, url):
    _refused(url, target, repr(url), "https")
    if url.startswith("http:"):
        server.redirect = url
        _refused(server.url, target, repr(url), "https")
        assert len(server.ranges) == 1
    assert not target.exists()


def test_redirect_keeps_the_range(server, target):
    _begun(target, CONTENT[:1000])
    server.redirect = server.url + "/moved"
    download.fetch(server.url, SHA256, target, REMEDY)
    assert _complete(target)
    assert server.ranges == ["bytes=1000-"] * 2


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    _refused(server.url, tmp_path / "file" / "weights.pth", "cannot be written")


def test_at_the_same_time(server, target):
    """One download for all; locks of one process exclude its threads as well, each with a file of its own."""
    threads = [threading.Thread(target=download.fetch, args=(server.url, SHA256, target, REMEDY)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _complete(target)
    assert server.ranges == [None]


def test_goes_on_after_the_process_that_held_the_lock(server, target):
    """What that one wrote meanwhile counts."""
    _begun(target, CONTENT[:1000])
    thread = threading.Thread(target=download.fetch, args=(server.url, SHA256, target, REMEDY))
    with _part(target).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread.start()
        time.sleep(0.2)
        assert server.ranges == []
        other.write(CONTENT[1000:5000])
    thread.join()
    assert _complete(target)
    assert server.ranges == ["bytes=5000-"]


def test_sha256_of(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(InputError, match="is missing"):
        download.sha256_of(path)
    path.write_bytes(b"abc")  # the example of FIPS 180-2
    assert download.sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(InputError, match="cannot be read"):
        download.sha256_of(tmp_path)
