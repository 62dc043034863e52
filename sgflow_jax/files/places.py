"""What the text of a flag, or of a field of the configuration, says of a file or a directory."""

import os
import re
from pathlib import Path

from sgflow_jax.interfaces import InputError

NAME_BYTES = 255  # longest name that every common file system takes


def path(what: str, text: str) -> str:
    """A file's or a directory's path, with ~ as the home directory; "" stays "".

    what: the flag or field, for the InputError: for an address (gs://...), for a home directory that is not known, and
    for names that cannot be.
    """
    if not text:
        return ""
    if scheme := re.match(r"\s*([A-Za-z][\w+.-]*):/", text):
        raise InputError(
            f"{what}={text} is an address ({scheme[1]}), and only files and directories can be used: give a path, as "
            "that of the directory where a bucket is mounted"
        )
    if text.startswith("~") and (expanded := os.path.expanduser(text)) == text:
        raise InputError(f"{what}={text} names a home directory that is not known: write the path out")
    found = str(Path(expanded if text.startswith("~") else text))
    _check_names(what, found)
    return found


def run(what: str, text: str) -> str:
    """As `path`, for the directory of a run, whose checkpoints must be found again and which commands take in lists."""
    found = path(what, text)
    check_run(what, found)
    return found


def check_run(what: str, workdir: str) -> None:
    """InputError for a directory that could not be read again.

    Orbax looks for what it wrote by patterns (`etils.epath` puts the directory into them as it is), so that with one of
    * ? [ anywhere in the path it finds nothing, or the files of another run. Lists of directories are cut at commas.
    """
    path(what, workdir)
    try:
        whole = str(Path(workdir).absolute())
    except FileNotFoundError as error:
        raise InputError(f"{what}={workdir}: the current directory was removed: change to one that is there") from error
    _check_names(what, whole)
    if os.path.isdir(workdir) and not os.access(workdir, os.R_OK | os.X_OK):
        raise InputError(f"{what}={workdir} cannot be read (Permission denied): ask its owner, or use another")
    for character in "*?[":
        if character in whole:
            raise InputError(
                f"{what}={workdir}: with {character!r} in the path {whole} no checkpoint could be read again: use "
                "another directory"
            )
    if workdir != workdir.strip() or set(workdir) & set(',"\r\n'):
        raise InputError(
            f"{what}={workdir}: commands take lists of directories, which are cut at commas: use a name without "
            "commas, quotes, line breaks, and spaces at its ends"
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
        raise InputError(f"{what}={text} is not ASCII, and the locale is: set LC_ALL=C.UTF-8") from error
    for name in Path(text).parts:
        if len(name.encode()) > NAME_BYTES:
            raise InputError(f"{what} has a name of more than {NAME_BYTES} bytes, {name[:20]}...: use a shorter one")
    try:
        os.lstat(text)
    except (FileNotFoundError, NotADirectoryError):
        pass  # it may be made, or is missed where it is needed
    except OSError as error:
        shown = text if len(text) < 200 else f"{text[:40]}..."
        raise InputError(f"{what}={shown} cannot be reached ({error.strerror}): use another path") from error
