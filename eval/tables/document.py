"""Tables inside documents: a command replaces the text between the two lines that name it."""

from pathlib import Path

from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError


class Place:
    """The place of a command in a document. InputError if the document has none, or is not writable."""

    def __init__(self, file: Path, command: str):
        self._file = file
        self._begin, self._end = f"<!-- {command}: begin -->", f"<!-- {command}: end -->"
        self._parts()
        disk.check_writable(file)

    def _parts(self) -> tuple[str, str]:
        """The text before and after the place."""
        try:
            text = self._file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            fault = f"--doc={self._file} cannot be read ({type(error).__name__})"
            raise InputError(f"{fault}: name a file with the line {self._begin}") from error
        head, begin, rest = text.partition(self._begin)
        _, end, tail = rest.partition(self._end)
        if not (begin and end):
            raise InputError(f"--doc has no place for the table: add the lines {self._begin} and {self._end}")
        return head, tail

    def fill(self, content: str) -> None:
        """Replaces the content of the place."""
        head, tail = self._parts()
        disk.write_atomically(self._file, f"{head}{self._begin}\n\n{content}\n{self._end}{tail}")
