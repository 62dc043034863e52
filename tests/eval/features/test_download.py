import hashlib
import http.server
import threading

import numpy as np
import pytest

from eval.features import download
from sgflow_jax.interfaces import InputError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REMEDY = "give --weights"


class _Server(http.server.ThreadingHTTPServer):
    """Serves `content` at every path and records the paths in `requests`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/weights"
        self.requests = []
        self.content = CONTENT
        self.cuts = []  # bytes after which the first answers end
        self.statuses = []  # errors to answer first
        self.redirect = None


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append(self.path)
        if server.redirect and self.path == "/weights":
            return self._head(302, {"Location": server.redirect, "Content-Length": "0"})
        if server.statuses:
            return self._head(server.statuses.pop(0), {"Content-Length": "0"})
        self._head(200, {"Content-Length": str(len(server.content))})
        self.wfile.write(server.content[: server.cuts.pop(0) if server.cuts else None])

    def _head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
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


def _files(target):
    return {file.name for file in target.parent.iterdir()} - {"weights.pth.lock"}


def _complete(target):
    return target.read_bytes() == CONTENT and _files(target) == {target.name}


def _rejected(url, target, *matches):
    with pytest.raises(InputError) as caught:
        download.fetch(url, SHA256, target, REMEDY)
    assert "\n" not in str(caught.value)
    for match in matches:
        assert match in str(caught.value)


def test_downloads_once(server, target, capfd):
    for _ in range(2):
        assert download.fetch(server.url, SHA256, target, REMEDY) == target
    assert _complete(target) and server.requests == ["/weights"]
    assert capfd.readouterr().err == ""  # no progress bar without a terminal


def test_shows_progress_on_a_terminal(server, target, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    download.fetch(server.url, SHA256, target, REMEDY)
    assert "300k/300k" in capsys.readouterr().err


def test_retries_after_server_errors_and_cut_connections(server, target):
    server.statuses, server.cuts = [503], [120_000]
    download.fetch(server.url, SHA256, target, REMEDY)
    assert _complete(target) and len(server.requests) == 3


def test_failed_downloads_leave_nothing(server, target):
    server.cuts = [1000] * 3
    _rejected(server.url, target, server.url, "cannot be downloaded", REMEDY)
    server.statuses = [404] * 3
    _rejected(server.url, target, "404", REMEDY)
    server.content = b"x" * 1000
    _rejected(server.url, target, SHA256, hashlib.sha256(server.content).hexdigest(), REMEDY)
    assert not _files(target)
    url = server.url
    server.server_close()
    _rejected(url, target, f"{url} cannot be downloaded (no connection): {REMEDY}")


def test_replaces_a_file_with_another_sha256(server, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT[:1000])
    download.fetch(server.url, SHA256, target, REMEDY)
    assert _complete(target)


@pytest.mark.parametrize(
    "url", ["http://example.org/w", "http://localhost.example.org/w", "ftp://127.0.0.1/w", "file:///w", "w"]
)
def test_insecure_addresses_and_redirects_are_rejected(server, target, url):
    _rejected(url, target, repr(url), "https")
    if "://" in url:
        server.redirect = url
        _rejected(server.url, target, repr(url), "https")
        assert server.requests == ["/weights"]
    assert not target.exists()


def test_follows_secure_redirects(server, target):
    server.redirect = "/moved"
    download.fetch(server.url, SHA256, target, REMEDY)
    assert _complete(target) and server.requests == ["/weights", "/moved"]


def test_unwritable_folder(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    _rejected(server.url, tmp_path / "file" / "weights.pth", "cannot be written")
    assert (tmp_path / "file").read_bytes() == b""


def test_concurrent_calls_download_once(server, target):
    threads = [threading.Thread(target=download.fetch, args=(server.url, SHA256, target, REMEDY)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _complete(target) and server.requests == ["/weights"]


def test_sha256_of(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(InputError, match="is missing"):
        download.sha256_of(path)
    path.write_bytes(b"abc")  # the example of FIPS 180-2
    assert download.sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(InputError, match="cannot be read"):
        download.sha256_of(tmp_path)
