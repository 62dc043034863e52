"""What a command tells, and the environment it starts in, neither of which may end its work.

The standard library alone at the top, because `begin` comes before the other imports of a command, which take seconds.
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
    """Makes a command independent of the environment it was started in. The first call counts.

    Paths and text are UTF-8 in every locale. A standard stream that is closed, breaks or is on a full disk takes what
    it can, and loses the rest. Pictures are files, whatever backend of matplotlib the environment names. Warnings of
    libraries stay warnings. Ctrl-C ends the command with one line and code 130, until `ready`.
    """
    if isinstance(getattr(sys.stdout, "buffer", None), _Buffer):
        return
    # Paths would be other bytes for the libraries that are written in C++, and files would be read in the locale's
    # encoding. Python fixes its own before any code runs.
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get(_UTF8) != "1":
        os.environ[_UTF8] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: a file that is opened later would get this number, and what is printed
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)
    os.environ["MPLBACKEND"] = "agg"
    if any(action == "error" for action, *_ in warnings.filters):  # meant for other code than that of all libraries
        warnings.resetwarnings()
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where the shell has it ignored
        signal.signal(signal.SIGINT, _leave)
    overwrite("starting")  # the imports that follow take seconds


def ready() -> None:
    """The imports are over: from now on Ctrl-C raises KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def say(text: str, to_stderr: bool = False) -> None:
    """Prints a line, or several, above the progress bar if there is one. What cannot be printed is left out.

    What a file or a flag holds is not for the terminal to obey: control characters become question marks.
    """
    from tqdm import tqdm

    stream = sys.stderr if to_stderr else sys.stdout
    if stream is None:
        return
    shown = "".join(c if c.isprintable() or c in "\n\t" or "\ud800" <= c <= "\udfff" else "?" for c in text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    if _overwritten:
        overwrite("")  # or the line would stand behind it
    with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
        tqdm.write(shown.encode(encoding, "backslashreplace").decode(encoding), file=stream)
        stream.flush()


def overwrite(text: str) -> None:
    """Puts text in place of the terminal's last line, without ending it; nothing where stderr is no terminal."""
    global _overwritten
    _overwritten = bool(text)
    if sys.stderr is not None and sys.stderr.isatty():
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()


def bar(silent: bool = False, **options) -> "tqdm":
    """A progress bar, with the options of tqdm, on stderr; one that shows nothing if silent, or that is no terminal."""
    from tqdm import tqdm

    shown = not silent and sys.stderr is not None and sys.stderr.isatty()
    return tqdm(disable=not shown, dynamic_ncols=True, **options)


class _Descriptor(io.RawIOBase):
    """Writes that never fail: what a closed pipe, a full disk or a terminal that is gone does not take is lost."""

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
    """Of a `_Descriptor`."""


def _stream(descriptor: int, before: io.TextIOWrapper | None) -> io.TextIOWrapper:
    """Text to a descriptor, in the encoding of the stream it replaces."""
    encoding = before.encoding if before else "utf-8"
    buffer = _Buffer(_Descriptor(descriptor))
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=True)


def _leave(number: int, _) -> None:
    overwrite("")
    with contextlib.suppress(OSError):
        os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + number)
