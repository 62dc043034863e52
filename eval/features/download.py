"""Files from the web: downloaded once, over HTTPS, identified by their SHA-256."""

import hashlib
import urllib.parse
from pathlib import Path

import pooch
import requests

from sgflow_jax import terminal
from sgflow_jax.files import locks
from sgflow_jax.interfaces import InputError

RETRIES = 2
TIMEOUT_S = 30.0  # without a byte
CHUNK = 2**20  # bytes
LOCAL = ("localhost", "127.0.0.1")  # may use plain http

pooch.get_logger().setLevel("ERROR")  # it announces every download


class _InsecureAddress(Exception):
    """Not a ValueError: pooch would retry it."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. InputError if it is missing or unreadable."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: download it") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from error


def fetch(url: str, sha256: str, target: Path, remedy: str) -> Path:
    """Downloads `url` to `target`, unless a file with this SHA-256 is already there, and returns `target`.

    The file appears whole or not at all. Concurrent processes wait for one download. remedy: ends the message of a
    failed download. InputError for a wrong SHA-256, a failed download, or an address (also after a redirect) that is
    not https.
    """
    if target.exists() and sha256_of(target) == sha256:
        return target
    registry = pooch.create(
        target.parent, "", registry={target.name: sha256}, urls={target.name: url}, retry_if_failed=RETRIES
    )
    try:
        _check_address(url)
        with locks.held(target.with_name(f"{target.name}.lock")):
            return Path(registry.fetch(target.name, downloader=_download))
    except _InsecureAddress as error:
        raise InputError(f"{error} is not a secure address: use one that begins with https://") from error
    except InputError:
        raise
    except (requests.RequestException, ValueError) as error:  # ValueError: another SHA-256
        offline = type(error) in (requests.ConnectionError, requests.ConnectTimeout)  # whose text is a stack of others
        fault = "no connection" if offline else " ".join(str(error).split())
        raise InputError(f"{url} cannot be downloaded ({fault}): {remedy}") from error
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}): check the folder and its free space"
        ) from error


def _download(url: str, file: str, _: pooch.Pooch) -> None:
    with terminal.bar(total=1, unit="B", unit_scale=True, desc=url.rpartition("/")[2]) as progress:
        hooks = {"response": _check_redirect}
        pooch.HTTPDownloader(progress, CHUNK, timeout=TIMEOUT_S, hooks=hooks)(url, file, None)


def _check_redirect(response: requests.Response, **_) -> None:
    """Runs on every response, before a redirect is followed."""
    if response.is_redirect:
        _check_address(urllib.parse.urljoin(response.url, response.headers["location"]))


def _check_address(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if not (parts.scheme == "https" or parts.scheme == "http" and parts.hostname in LOCAL):
        raise _InsecureAddress(repr(url))
