"""Prints to the terminal, and prepares the environment of a command. Neither may end its work.

Imports only the standard library at the top: `begin` runs before the other imports of a command, which take seconds.
"""

import contextlib
import io
import os
import signal
import sys
import typing
import warnings

if typing.TYPE_CHECKING:
    from tqdm import tqdm

INTERRUPTED = "interrupted: a run continues from its last checkpoint with the same command"
_UTF8 = "PYTHONUTF8"
_overwritten = False  # whether the terminal's last line is one that `overwrite` has put there


def begin() -> None:
    """Makes a command independent of the environment it was started in. Only the first call does anything.

    Paths and text are UTF-8 in every locale. A standard stream that is closed, broken or on a full disk loses output
    without an error. matplotlib draws to files, whatever backend the environment names. Warnings of libraries stay
    warnings. Until `ready`, Ctrl-C ends the command with one line and code 130.
    """
    if isinstance(getattr(sys.stdout, "buffer", None), _Buffer):
        return
    # Else C++ libraries would see paths as other bytes, and files would be read in the locale's encoding. Python fixes
    # its encoding before any code runs, so it is started again.
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get(_UTF8) != "1":
        os.environ[_UTF8] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next opened file would get this number, and the output with it
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)
    os.environ["MPLBACKEND"] = "agg"
    if any(action == "error" for action, *_ in warnings.filters):  # not meant for the libraries
        warnings.resetwarnings()
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # unless the shell ignores it
        signal.signal(signal.SIGINT, _leave)
    overwrite("starting")  # the imports that follow take seconds


def ready() -> None:
    """The imports are done: Ctrl-C raises KeyboardInterrupt from now on."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def say(text: str, to_stderr: bool = False) -> None:
    """Prints one or more lines above the progress bar, if any. Output that fails is dropped.

    Control characters become question marks, so that file contents cannot send terminal escapes.
    """
    from tqdm import tqdm

    stream = sys.stderr if to_stderr else sys.stdout
    if stream is None:
        return
    shown = "".join(c if c.isprintable() or c in "\n\t" or "\ud800" <= c <= "\udfff" else "?" for c in text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    if _overwritten:
        overwrite("")  # else the text would follow that line
    with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
        tqdm.write(shown.encode(encoding, "backslashreplace").decode(encoding), file=stream)
        stream.flush()


def overwrite(text: str) -> None:
    """Replaces the terminal's last line, without ending it. Does nothing if stderr is not a terminal."""
    global _overwritten
    _overwritten = bool(text)
    if sys.stderr is not None and sys.stderr.isatty():
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()


def bar(silent: bool = False, **options) -> "tqdm":
    """A progress bar on stderr, with the options of tqdm. Hidden if `silent`, or if stderr is not a terminal."""
    from tqdm import tqdm

    shown = not silent and sys.stderr is not None and sys.stderr.isatty()
    return tqdm(disable=not shown, dynamic_ncols=True, **options)


class _Descriptor(io.RawIOBase):
    """Writes never fail: a closed pipe, a full disk or a lost terminal loses the output."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, content) -> int:
        with contextlib.suppress(OSError):
            return os.write(self._descriptor, content)
        return len(content)


class _Buffer(io.BufferedWriter):
    """Buffers a `_Descriptor`."""


def _stream(descriptor: int, before: io.TextIOWrapper | None) -> io.TextIOWrapper:
    """A text stream to a descriptor, in the encoding of the stream it replaces."""
    encoding = before.encoding if before else "utf-8"
    buffer = _Buffer(_Descriptor(descriptor))
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=True)


def _leave(number: int, _) -> None:
    overwrite("")
    with contextlib.suppress(OSError):
        os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + number)
