"""Checks and expands the paths given in flags and configuration fields."""

import os
import re
from pathlib import Path

from sgflow_jax.interfaces import InputError

NAME_BYTES = 255  # longest name that every common file system takes


def path(what: str, text: str) -> str:
    """The path of a file or directory, with ~ expanded; "" stays "".

    what: the flag or field, named in errors. InputError for an address (gs://...), an unknown home directory, or a name
    that no file can have.
    """
    if not text:
        return ""
    if scheme := re.match(r"\s*([A-Za-z][\w+.-]*):/", text):
        raise InputError(
            f"{what}={text} is an address ({scheme[1]}), not a file or directory: give a path, such as the "
            "directory where a bucket is mounted"
        )
    if text.startswith("~") and (expanded := os.path.expanduser(text)) == text:
        raise InputError(f"{what}={text} names an unknown home directory: write the path out")
    found = str(Path(expanded if text.startswith("~") else text))
    _check_names(what, found)
    return found


def run(what: str, text: str) -> str:
    """As `path`, for the directory of a run: see `check_run`."""
    found = path(what, text)
    check_run(what, found)
    return found


def check_run(what: str, workdir: str) -> None:
    """InputError for a directory whose checkpoints could not be found again.

    Orbax finds its files by glob patterns that contain the path unescaped, so with one of * ? [ in it orbax finds
    nothing, or another run's files. Flags with several directories are split at commas.
    """
    path(what, workdir)
    try:
        whole = str(Path(workdir).absolute())
    except FileNotFoundError as error:
        raise InputError(f"{what}={workdir}: the current directory was removed: change to another") from error
    _check_names(what, whole)
    if os.path.isdir(workdir) and not os.access(workdir, os.R_OK | os.X_OK):
        raise InputError(f"{what}={workdir} cannot be read (Permission denied): ask its owner, or use another")
    for character in "*?[":
        if character in whole:
            raise InputError(
                f"{what}={workdir}: checkpoints under {whole} could not be read again because of {character!r}: use "
                "another directory"
            )
    if workdir != workdir.strip() or set(workdir) & set(',"\r\n'):
        raise InputError(
            f"{what}={workdir}: commands split lists of directories at commas: use a name without commas, "
            "quotes, line breaks, or spaces at its ends"
        )


def _check_names(what: str, text: str) -> None:
    if "\0" in text:
        raise InputError(f"{what}={text} has a zero byte: remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        try:
            os.fsencode(text).decode()
        except UnicodeError:
            raise InputError(f"{what}={text} is not UTF-8: rename it") from error
        raise InputError(f"{what}={text} is not ASCII, but the locale is: set LC_ALL=C.UTF-8") from error
    for name in Path(text).parts:
        if len(name.encode()) > NAME_BYTES:
            raise InputError(f"{what} has a name of more than {NAME_BYTES} bytes, {name[:20]}...: use a shorter one")
    try:
        os.lstat(text)
    except (FileNotFoundError, NotADirectoryError):
        pass  # it may be made later; whoever needs it reports it
    except OSError as error:
        shown = text if len(text) < 200 else f"{text[:40]}..."
        raise InputError(f"{what}={shown} cannot be reached ({error.strerror}): use another path") from error
