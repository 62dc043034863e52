"""Files from the web: fetched once, resumed after an interruption, known by their SHA-256."""

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sgflow_jax import terminal
from sgflow_jax.files import locks
from sgflow_jax.interfaces import InputError

ATTEMPTS = 3
PAUSE_S = 2.0  # between attempts
TIMEOUT_S = 30.0  # without a byte
CHUNK = 2**20  # bytes
LOCAL = ("localhost", "127.0.0.1")  # what plain http is allowed for


def sha256_of(path: Path) -> str:
    """In hexadecimal digits. InputError if there is no such file, or it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: download it") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from error


def fetch(url: str, sha256: str, target: Path, remedy: str) -> Path:
    """`target`, downloaded unless it is there already; its SHA-256 is checked either way.

    What arrives is kept in target + ".part", and an interrupted download goes on from there, in this call or the next.
    Processes that fetch the same target wait for each other. `remedy` ends the message if the file cannot be had.
    InputError for a wrong SHA-256, a failed download, or an address that is not https.
    """
    _check_address(url)
    if target.exists():
        return _verify(target, sha256)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(target.name + ".part")) as file:
            part = Path(file.name)
            if target.exists():  # another process made it meanwhile
                part.unlink()
                return _verify(target, sha256)
            _download(url, file, remedy)
            found = sha256_of(part)
            if found != sha256:
                part.unlink()
                raise InputError(f"{url} has SHA-256 {found}, expected {sha256}: {remedy}")
            os.replace(part, target)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}): check the folder and its free space"
        ) from error
    return target


def _verify(target: Path, sha256: str) -> Path:
    found = sha256_of(target)
    if found != sha256:
        raise InputError(
            f"{target} has SHA-256 {found}, expected {sha256}: remove the file, and it is downloaded again"
        )
    return target


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """`part`, open for appending by this process alone."""
    while True:
        with part.open("ab") as file:
            locks.take(file)
            # Whoever held the lock may have renamed or removed the file: then this is no longer the one at `part`.
            try:
                current = os.path.samestat(os.fstat(file.fileno()), part.stat())
            except FileNotFoundError:
                current = False
            if current:
                file.seek(0, os.SEEK_END)  # it may have grown since it was opened
                yield file
                return


def _download(url: str, file: BinaryIO, remedy: str) -> None:
    """Appends the rest of the file, in at most ATTEMPTS connections."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _append(url, file)
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if refused or attempt == ATTEMPTS:
                fault = " ".join(str(error).split()) or type(error).__name__
                raise InputError(f"{url} cannot be downloaded ({fault}): {remedy}") from error
        time.sleep(PAUSE_S)


def _append(url: str, file: BinaryIO) -> None:
    """One connection: what of the file is still missing, or all of it if the server does not send a part."""
    offset = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if not (offset and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            raise
        _start_over(file)
        return _append(url, file)

    with response:
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        if offset and not (response.status == http.HTTPStatus.PARTIAL_CONTENT and resumed):
            _start_over(file)
        length = response.headers.get("Content-Length", "")
        total = file.tell() + int(length) if length.isdecimal() else None
        name = Path(file.name).stem
        with terminal.bar(total=total, initial=file.tell(), unit="B", unit_scale=True, desc=name) as progress:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
        file.flush()
        # A connection that is cut ends like a complete one.
        if total is not None and file.tell() < total:
            raise ConnectionError(f"the connection ended after {file.tell()} of {total} bytes")


def _start_over(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise InputError(f"{url!r} is not an address: use one that begins with https://") from error
    if not (parts.scheme == "https" or parts.scheme == "http" and parts.hostname in LOCAL):
        raise InputError(f"{url!r} is not a secure address: use one that begins with https://")
